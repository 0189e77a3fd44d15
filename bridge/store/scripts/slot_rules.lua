-- What the scripts of the slots share; it is put in front of each, behind `prelude.lua`.
-- The hash has a record per slot, index -> JSON: holder, epoch, cvm, since, deadline (ms), closing, lost (its holder
-- knows of no stream in it, but upstream may have one).
-- A record that this version cannot read (another version's, damaged) may still stand for an open stream: each part of
-- it that cannot be read counts as if the stream had just been opened with the longest life.
local MOST_SLOTS = 5
local LONGEST_MS = 700000  -- a timeout of at most 600 s (docs/contract.md#environment) and the grace periods

local function finite(value) return type(value) == 'number' and value == value and math.abs(value) < 1e15 end

-- Milliseconds: seconds would be a moment long past, and free the slot.
local function is_time(value) return finite(value) and value > now / 100 end

-- The record, whether it was odd, and whether its times moved with a clock that stepped back.
local function slot_record(text)
  local fine, found = pcall(cjson.decode, text)
  if not fine or type(found) ~= 'table' then found = {} end
  local odd = not (is_time(found.since) and is_time(found.deadline) and finite(found.epoch)
    and type(found.holder) == 'string' and type(found.cvm) == 'string')
  local since = is_time(found.since) and found.since
  local deadline = is_time(found.deadline) and found.deadline or now + LONGEST_MS
  if not since or since > deadline or deadline - since > LONGEST_MS then since = deadline - LONGEST_MS end
  local moved = since > now
  -- The server's clock stepped back: at most the whole lifetime is left, counted from now.
  if moved then since, deadline = now, now + deadline - since end
  local record = {
    holder = type(found.holder) == 'string' and found.holder or '',
    epoch = finite(found.epoch) and found.epoch or 0,
    cvm = type(found.cvm) == 'string' and found.cvm or '',
    since = since, deadline = deadline, closing = found.closing == true, lost = found.lost == true
  }
  return record, odd, moved
end

local function held_by(record, holder, epoch) return record.holder == holder and whole(record.epoch) == epoch end

local function write_slot(key, index, record) call('HSET', key, index, cjson.encode(record)) end

-- The records by index (as text), and the indexes of odd ones. With `settle`, odd and moved ones are written as they
-- count, so that their time runs out, and what is no slot is removed.
local function slot_records(key, settle)
  local records, odd = {}, {}
  local kind = call('TYPE', key).ok
  if kind ~= 'hash' and kind ~= 'none' then
    -- Whatever it was: there may have been a stream in each.
    if settle then call('DEL', key) end
    for i = 0, MOST_SLOTS - 1 do
      local index = tostring(i)
      records[index], odd[i + 1] = slot_record(''), index
      if settle then write_slot(key, index, records[index]) end
    end
    return records, odd
  end
  local stored = kind == 'hash' and call('HGETALL', key) or {}
  for i = 1, #stored, 2 do
    local index = stored[i]
    if string.match(index, '^%d$') and tonumber(index) < MOST_SLOTS then
      local record, is_odd, moved = slot_record(stored[i + 1])
      records[index] = record
      if is_odd then odd[#odd + 1] = index end
      if settle and (is_odd or moved) then write_slot(key, index, record) end
    elseif settle then
      call('HDEL', key, index)
      odd[#odd + 1] = index
    end
  end
  return records, odd
end

local NOTICED_MS = 500  -- a deadline that moved less was on its way for a while

-- Writes what a process knows of slots and Redis lacks (it was flushed, lost the last writes, or its clock jumped):
-- missing records are made and deadlines put off; no slot is free sooner because of it. This needs no lead.
-- From ARGV[first] on: index, holder, epoch, cvm id, ms of its whole lifetime, ms that are left of it, lost; and so on.
local function hold_slots(key, first)
  if not ARGV[first] then return end
  local records = slot_records(key, true)
  for i = first, #ARGV, 7 do
    local record, deadline = records[ARGV[i]], now + tonumber(ARGV[i + 5])
    local since, lost = deadline - tonumber(ARGV[i + 4]), ARGV[i + 6] == '1'
    local own = record and held_by(record, ARGV[i + 1], ARGV[i + 2])
    local open = record and record.deadline > now and not record.closing
    -- What was on its way while the stream in it was closed is no news.
    local old = own and record.closing and since <= record.deadline
    local later = not open and (not record or record.deadline < deadline)
      or own and open and (record.deadline + NOTICED_MS < deadline or record.lost ~= lost)
    if later and not old then
      deadline = record and open and math.max(record.deadline, deadline) or deadline
      write_slot(key, ARGV[i], {holder = ARGV[i + 1], epoch = tonumber(ARGV[i + 2]), cvm = ARGV[i + 3],
        since = deadline - tonumber(ARGV[i + 4]), deadline = deadline, closing = false, lost = lost})
    end
  end
end
