-- Remove private keys of another type than the bridge gives them: they are rewritten as they are needed.
-- KEYS: leader, state, watches, then others. ARGV: holder, epoch, then the type of each but the leader.
-- Returns {1, the keys that were removed}, or {0}: fenced.
if not leads(KEYS[1], ARGV[1], ARGV[2]) then return {0} end
local removed = {}
for i = 2, #KEYS do
  local kind = call('TYPE', KEYS[i]).ok
  if kind ~= 'none' and kind ~= ARGV[i + 1] then
    call('DEL', KEYS[i])
    removed[#removed + 1] = KEYS[i]
    if i == 3 then
      -- What has a state was watched: these watches last as if they had been wanted just now.
      for _, cvm_id in ipairs(call('HKEYS', KEYS[2])) do call('ZADD', KEYS[3], whole(now), cvm_id) end
    end
  end
end
return {1, removed}
