-- The name of each CVM that there is, as its last state has it. KEYS: state. Returns ids and names (as JSON) in turns.
-- A CVM without a state is deleted, or was never seen. A snapshot's own fields stand behind its state: the last `name`.
local TAIL = 4000  -- bytes: a name that is a reference has 256 characters, escaped 12 bytes each at most
local found, fields = {}, call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local tail, at, next_at = string.sub(fields[i + 1], -TAIL), nil, 0
  repeat
    at, next_at = next_at, string.find(tail, ',"name":"', next_at + 1, true)
  until not next_at
  local name = at > 0 and string.match(tail, '^(".-"),"since":', at + 8)
  if name and string.sub(fields[i + 1], 1, 13) ~= '{"state":null' then
    found[#found + 1], found[#found + 2] = fields[i], name
  end
end
return found
