-- Decode entries and dead letters, and distinguish damaged ones from those of a newer release.

local function is_list(value)
  if type(value) ~= 'table' then return false end
  for key, each in pairs(value) do
    if type(key) ~= 'number' or type(each) ~= 'string' then return false end
  end
  return true
end

-- The type of each field. A field that is not listed here may have any type, because a newer release may have added it.
local TIME_LIMIT = 253402300800000
local TYPES = {
  queue = 'string', account = 'string', lease = 'string', cause = 'string', why = 'string', request_id = 'string',
  trace = 'string', runs = 'list', orders = 'list', evidence = 'list', refresh_outcomes = 'list', attempts = 'number',
  lost = 'number', status = 'number', accepted = 'number', asked = 'number', first = 'number', last = 'number',
  forbidden = 'number', excused = 'number', event_at = 'number', due = 'number', refresh = 'boolean', suspect = 'boolean',
  unnamed = 'boolean', without_request = 'boolean', even_if_erased = 'order time', trigger = 'table', again = 'table',
  cancelled = 'table',
}
local JOB = { 'queue', 'account', 'attempts', 'lost', 'accepted', 'refresh', 'trigger', 'runs' }
local AGAIN = { 'queue', 'due', 'trigger', 'runs' }
local LETTER = { 'queue', 'account', 'attempts', 'accepted', 'trigger', 'runs', 'cause', 'why', 'first', 'last' }

local function is_of_type(value, wanted)
  if wanted == 'list' then return is_list(value) end
  if wanted == 'order time' then return type(value) == 'boolean' or is_of_type(value, 'number') end
  return type(value) == wanted and (wanted ~= 'number' or value >= 0 and value < TIME_LIMIT)
end

-- Return whether a decoded text has the required fields, and every known field has its type.
local function is_sound(job, required)
  if type(job) ~= 'table' then return false end
  for _, field in ipairs(required) do
    if job[field] == nil then return false end
  end
  for field, value in pairs(job) do
    if TYPES[field] and not is_of_type(value, TYPES[field]) then return false end
  end
  for _, what in pairs(job.cancelled or {}) do
    if type(what) ~= 'string' then return false end
  end
  for _, field in ipairs({ 'source', 'run', 'event_type', 'event_id' }) do
    local value = (job.trigger or {})[field]
    if value ~= nil and type(value) ~= 'string' then return false end
  end
  return (not job.trigger or job.trigger.source ~= nil) and (not job.again or is_sound(job.again, AGAIN))
end

-- Return a job or a dead letter, or nil if its text is damaged.
local function decode(text, required)
  local has_read, job = pcall(cjson.decode, text)
  return has_read and is_sound(job, required) and job or nil
end
