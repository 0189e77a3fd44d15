-- Write when CVMs were confirmed: see store/confirmations.py. KEYS: leader, rounds, confirmed.
-- ARGV: holder, epoch, the revision that Redis must have ('': it is all there is, whatever Redis has), the new revision,
-- how many rounds, then name and text of each field of `rounds` and of `confirmed`; an empty text deletes the field.
-- Returns 1, 0: fenced, or -1: Redis has another revision (a promoted replica, a key that was deleted).
if not leads(KEYS[1], ARGV[1], ARGV[2]) then return 0 end
if ARGV[3] == '' then
  call('DEL', KEYS[2], KEYS[3])
elseif redis.pcall('HGET', KEYS[2], 'revision') ~= ARGV[3] or redis.pcall('HLEN', KEYS[3]) == 0 then
  return -1
end

-- In slices: a call takes some thousand arguments at most.
local function write(key, first, last, also)
  local set, gone = also, {}
  local function flush(most)
    if #set > most then call('HSET', key, unpack(set)) set = {} end
    if #gone > most then call('HDEL', key, unpack(gone)) gone = {} end
  end
  for i = first, last, 2 do
    if ARGV[i + 1] == '' then
      gone[#gone + 1] = ARGV[i]
    else
      set[#set + 1] = ARGV[i]
      set[#set + 1] = ARGV[i + 1]
    end
    flush(1000)
  end
  flush(0)
end
local rounds_end = 5 + 2 * tonumber(ARGV[5])
write(KEYS[2], 6, rounds_end, {'revision', ARGV[4]})
write(KEYS[3], rounds_end + 1, #ARGV, {})
return 1
