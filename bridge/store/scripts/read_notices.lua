-- The first notices, in order. KEYS: notices. ARGV: 1 how many, 2 ms by which an id may be ahead of the clock.
-- Returns {now, ids and flat fields in turns}. Where a stranger's entry had an id so far ahead that hardly any can follow,
-- the key begins anew once nothing waits in it.
local found, told = call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[1]), {}
for n, entry in ipairs(found) do told[2 * n - 1], told[2 * n] = entry[1], entry[2] end
if not found[1] and call('EXISTS', KEYS[1]) == 1 then
  local info = call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' and id_parts(info[i + 1]) > now + ARGV[2] then call('DEL', KEYS[1]) end
  end
end
return {whole(now), told}
