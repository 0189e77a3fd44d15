-- Snapshots of some CVMs and when they were confirmed, as of one moment. KEYS: state, confirmed, rounds. ARGV: cvm ids.
-- Returns {fields of state, fields of confirmed, fields of rounds}, each name and text in turns. The times are private:
-- where Redis holds something else in their place, there are none.
local states, confirmed = {}, {}
for _, id in ipairs(ARGV) do
  local text, time = call('HGET', KEYS[1], id), redis.pcall('HGET', KEYS[2], id)
  if text then
    states[#states + 1], states[#states + 2] = id, text
  end
  if type(time) == 'string' then
    confirmed[#confirmed + 1], confirmed[#confirmed + 2] = id, time
  end
end
local rounds = redis.pcall('HGETALL', KEYS[3])
return {states, confirmed, rounds.err and {} or rounds}
