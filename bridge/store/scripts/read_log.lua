-- Read the log's entries above an id. KEYS: log. ARGV: id, most entries, most bytes of their events.
-- Returns ids and events (JSON, '' for an entry without one) in turns; one entry at least, however large it is.
local PIECE = 10  -- entries read at once: at 1 MiB each, more would be many bytes for nothing
local HIGHEST = '18446744073709551615-18446744073709551615'  -- nothing can be above it: there the command is an error
local after, left, bytes, found = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), {}
while left > 0 and bytes > 0 and after ~= HIGHEST do
  local asked = math.min(left, PIECE)
  local entries = call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', asked)
  for _, entry in ipairs(entries) do
    local fields, event = entry[2], ''
    for i = 1, #fields, 2 do
      if fields[i] == 'event' then event = fields[i + 1] end
    end
    if bytes <= 0 then return found end
    found[#found + 1], found[#found + 2] = entry[1], event
    after, bytes, left = entry[1], bytes - #event, left - 1
  end
  if #entries < asked then break end
end
return found
