-- What was delivered, remembered for as long as the log has the event, once the history tells it no more; behind
-- `lane_rules.lua`.
--   P:sent:E hash   log: the id of the log that the sequences are of; number of a group -> its marks as text
-- A group has the marks of GROUP sequences, six in each character from '0' on: 256 bytes at most.
local GROUP = 1536

local log_meta
local function current_log()
  log_meta = log_meta or call('HMGET', KEYS[2], 'birth', 'born_at', 'floor_sequence')
  return log_meta
end

-- The character that has a sequence's mark, its bits, and the mark's place among them.
local function find_mark(text, sequence)
  local place = sequence % GROUP
  local index = math.floor(place / 6) + 1
  local bits = (string.byte(text, index) or 48) - 48
  return index, bits, 2 ^ (place % 6)
end

local function is_set(bits, mark) return math.floor(bits / mark) % 2 == 1 end

local function read_marks(E, group)
  local known = redis.pcall('HMGET', of('sent', E), 'log', group)
  if known.err or known[1] ~= current_log()[1] then return nil end
  return string.match(known[2] or '', '^[0-o]*$') or ''
end

local function with_mark(text, sequence)
  local index, bits, mark = find_mark(text, sequence)
  if is_set(bits, mark) then return text end
  text = text .. string.rep('0', index - #text)
  return string.sub(text, 1, index - 1) .. string.char(48 + bits + mark) .. string.sub(text, index + 1)
end

-- 0 where it is not known.
local sequences = {}
local function sequence_of(event)
  if not sequences[event] then
    local known = redis.pcall('HGET', of('event', event), 'seq')
    if not known then
      -- The version before did not keep it apart.
      local text = redis.pcall('HGET', of('event', event), 'json')
      known = type(text) == 'string' and string.match(text, '"sequence":"0*(%d+)"')
    end
    sequences[event] = type(known) == 'string' and count(known) or 0
  end
  return sequences[event]
end

-- Sequences of events from before this log are of another one.
function mark_delivered(E, marked)
  local log, groups, names = current_log(), {}, {}
  for _, event in ipairs(marked) do
    local sequence = sequence_of(event)
    if sequence >= 1 and log[1] and id_parts(event) >= (count(log[2]) or 0) then
      local group = whole(math.floor(sequence / GROUP))
      if not groups[group] then groups[group], names[#names + 1] = {}, group end
      table.insert(groups[group], sequence)
    end
  end
  if not names[1] then return end
  local known, changed = redis.pcall('HMGET', of('sent', E), 'log', unpack(names)), {}
  if known.err or known[1] ~= log[1] then
    call('DEL', of('sent', E))
    known, changed = {}, {'log', log[1]}
  end
  for n, group in ipairs(names) do
    local before = string.match(known[n + 1] or '', '^[0-o]*$') or ''
    local text = before
    for _, sequence in ipairs(groups[group]) do text = with_mark(text, sequence) end
    if text ~= before then changed[#changed + 1], changed[#changed + 2] = group, text end
  end
  if changed[1] then call('HSET', of('sent', E), unpack(changed)) end
end

local function was_delivered(E, sequence)
  local text = sequence > 0 and read_marks(E, whole(math.floor(sequence / GROUP)))
  if not text then return false end
  local _, bits, mark = find_mark(text, sequence)
  return is_set(bits, mark)
end

-- Of events that the log has no more.
local function drop_old_marks(E)
  local low_water_mark = count(current_log()[3]) or 0
  local groups = redis.pcall('HKEYS', of('sent', E))
  if groups.err then
    call('DEL', of('sent', E))
    return
  end
  for _, group in ipairs(groups) do
    local number = group ~= 'log' and (count(group) or -1)
    if number and (number + 1) * GROUP <= low_water_mark then call('HDEL', of('sent', E), group) end
  end
end
