-- Remove what all endpoints share and has another type than the bridge gives it; what can be told from the rest is made
-- anew. ARGV: limits. Returns the removed keys.
local removed = {}
for suffix in pairs(SHARED) do
  if is_odd(suffix) then
    call('DEL', P .. suffix)
    removed[#removed + 1] = P .. suffix
  end
end
if #removed == 0 then return removed end
restore_ids()
renumber()
for _, E in ipairs(call('HKEYS', P .. ':endpoints')) do apart(E, rescore) end
return removed
