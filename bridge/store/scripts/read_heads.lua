-- The own fields of some CVMs' snapshots, without their states. KEYS: state. ARGV: cvm ids. Returns ids and JSON without
-- its opening brace in turns; the JSON is empty where it was not found. These fields stand behind the state, and the
-- first of them is the last `app_id`: none of those behind it has one.
local TAIL = 4000  -- bytes: a name that is a reference has 256 characters, escaped 12 bytes each at most
local found = {}
for _, id in ipairs(ARGV) do
  local text = call('HGET', KEYS[1], id)
  if text then
    local tail, at, next_at = string.sub(text, -TAIL), nil, 0
    repeat
      at, next_at = next_at, string.find(tail, ',"app_id":', next_at + 1, true)
    until not next_at
    found[#found + 1], found[#found + 2] = id, at > 0 and string.sub(tail, at + 1) or ''
  end
end
return found
