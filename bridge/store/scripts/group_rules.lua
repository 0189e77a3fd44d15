-- The consumer groups of the log; behind `prelude.lua`.

-- One of XINFO's answers, which are lists of names and values.
local function fields_of(answer)
  local found = {}
  for i = 1, #answer, 2 do found[answer[i]] = answer[i + 1] end
  return found
end

-- The groups of a stream, each with `name` and `last-delivered-id`; nil if there are more than `most`, because Redis
-- lists all at once.
local function groups_of(log, most)
  if call('EXISTS', log) == 0 then return {} end
  if fields_of(call('XINFO', 'STREAM', log)).groups > most then return nil end
  local found = {}
  for i, group in ipairs(call('XINFO', 'GROUPS', log)) do found[i] = fields_of(group) end
  return found
end

-- A group's name as printable ASCII: it may have any bytes, and millions of them. No two names give the same.
local function printable_name(group)
  local text = string.gsub(string.sub(group.name, 1, 100), '[%c\\\128-\255]', function(char)
    return string.format('\\x%02x', string.byte(char))
  end)
  if #group.name <= 100 then return text end
  return text .. '... (' .. #group.name .. ' bytes, SHA-1 ' .. string.sub(redis.sha1hex(group.name), 1, 12) .. ')'
end
