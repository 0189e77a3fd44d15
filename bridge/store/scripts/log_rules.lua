-- The log's record (the meta hash) and what can be told from the log's own entries; behind `prelude.lua`.
--   birth (the log id), sequence, last_id, floor (the low-water mark), floor_sequence, trimmed, born_at, writer
local HIGHEST = '18446744073709551615'
local EVENT = '"source":"/bridge/'

local function is_part(text)
  return text == '0' or (string.match(text, '^[1-9]%d*$') and (#text < 20 or (#text == 20 and text <= HIGHEST)))
end

-- Whether this is an entry's id above which Redis can write another.
local function is_id(text)
  local ms, counter = string.match(text or '', '^(%d+)-(%d+)$')
  return ms and is_part(ms) and is_part(counter) and text ~= HIGHEST .. '-' .. HIGHEST
end

local function is_count(text) return string.match(text or '', '^%d+$') and #text <= 15 end

-- Compared as text: the highest ids are more than Lua's numbers hold.
local function is_above(id, other)
  local a, b = {string.match(id, '(%d+)-(%d+)')}, {string.match(other, '(%d+)-(%d+)')}
  for i = 1, 2 do
    if #a[i] ~= #b[i] then return #a[i] > #b[i] end
    if a[i] ~= b[i] then return a[i] > b[i] end
  end
  return false
end

-- The sequence of an event that the bridge wrote; nil for strangers' entries.
local function own_number(entry)
  for i = 1, #entry[2], 2 do
    local text = entry[2][i] == 'event' and entry[2][i + 1] or ''
    local number = string.find(text, EVENT, 1, true) and string.match(text, '"sequence":"0*(%d+)"')
    if number and #number <= 15 then return number end
  end
end

-- Id and sequence of the bridge's first or newest entry (`command`: XRANGE, XREVRANGE); strangers' are passed over.
local function own_entry(log, command, from, to)
  for _ = 1, 100 do
    local entries = call(command, log, from, to, 'COUNT', 100)
    for _, entry in ipairs(entries) do
      local number = own_number(entry)
      if number then return entry[1], number end
      from = '(' .. entry[1]
    end
    if #entries < 100 or not is_id(string.sub(from, 2)) then return nil end
  end
end

-- Makes the log's record agree with its entries where it cannot be read. A record without any number to go on with is
-- deleted: then there is no log. Returns what was done ('' nothing), and the newest id of the bridge's ('' none).
local function mend_log(meta, log)
  local done = ''
  if not string.find('none stream', call('TYPE', log).ok, 1, true) then
    call('DEL', log)
    done = 'the log was no stream: its events are lost'
  end
  if not string.find('none hash', call('TYPE', meta).ok, 1, true) then call('DEL', meta) end
  local newest, number = own_entry(log, 'XREVRANGE', '+', '-')
  local known = call('HMGET', meta, 'birth', 'sequence', 'last_id', 'floor', 'floor_sequence', 'trimmed', 'born_at')
  local sequence, last = is_count(known[2]) and known[2], is_id(known[3]) and known[3]
  if newest and not (last and sequence and not is_above(newest, last) and tonumber(number) <= tonumber(sequence)
    and (newest ~= last or tonumber(number) == tonumber(sequence))) then
    sequence, last = number, (last and is_above(last, newest)) and last or newest
  end
  if not (sequence and last and is_id(last) and string.match(known[1] or '', '^[%w%p ]+$')
    and not string.find(known[1], '["\\]')) then
    if known[1] or call('EXISTS', meta) == 1 then done = 'the record of the log could not be read: a new log begins' end
    call('DEL', meta)
    return done, newest or ''
  end
  local floor, floor_sequence, first, first_number = known[4], known[5], own_entry(log, 'XRANGE', '-', '+')
  if not newest then
    -- No entry is left: all are as if they had been trimmed.
    if tonumber(sequence) > 0 then floor, floor_sequence = last, sequence end
  elseif not (is_id(floor) and is_count(floor_sequence) and is_above(first, floor)
    and tonumber(floor_sequence) < tonumber(first_number)) then
    floor, floor_sequence = whole(math.max(id_parts(first) - 1, 0)) .. '-0', whole(tonumber(first_number) - 1)
  end
  if not is_id(floor) or not is_count(floor_sequence) then floor, floor_sequence = last, sequence end
  if sequence ~= known[2] or last ~= known[3] or floor ~= known[4] or floor_sequence ~= known[5]
    or not string.match(known[6] or '0', '^[01]$') or not is_count(known[7] or '0') then
    if done == '' then done = 'the record of the log was mended by its entries' end
    call('HSET', meta, 'sequence', sequence, 'last_id', last, 'floor', floor, 'floor_sequence', floor_sequence,
      'trimmed', floor_sequence == '0' and 0 or 1, 'born_at', is_count(known[7]) and known[7] or whole(now))
  end
  return done, newest or ''
end
