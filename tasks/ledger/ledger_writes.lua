-- Read many evaluations with one command, and collect writes and counters until the verb is done.
--
-- A command costs more than its work for one evaluation, and Redis accepts several thousand arguments in one command.
--
-- Keys: now, run_key.

local MAX_ARGS = 2000
local batches = {}

local function read_all(command, key, ids)
  local found = {}
  for start = 1, #ids, MAX_ARGS do
    local some = redis.call(command, key, unpack(ids, start, math.min(start + MAX_ARGS - 1, #ids)))
    for i = 1, #some do found[start + i - 1] = some[i] end
  end
  return found
end

-- Add arguments to a command for a key, which `write_all` sends.
local function batch_write(command, key, ...)
  local batch = batches[command .. key]
  if not batch then
    batch = { command = command, key = key, args = {} }
    batches[command .. key] = batch
  end
  local args, more = batch.args, { ... }
  for i = 1, #more do args[#args + 1] = more[i] end
end

local function write_all()
  for _, batch in pairs(batches) do
    for start = 1, #batch.args, MAX_ARGS do
      redis.call(batch.command, batch.key, unpack(batch.args, start, math.min(start + MAX_ARGS - 1, #batch.args)))
    end
  end
  batches = {}
end

-- A person, a disk or another program may have damaged a value in Redis. A value that is not a number counts as 0.
local function to_number(text)
  local number = tonumber(text or 0)
  return number and number > -2 ^ 53 and number < 2 ^ 53 and number or 0
end

local function get_number(key, field) return to_number(redis.call('HGET', key, field)) end

-- Add to a field of a hash, and return its new value. A damaged value is replaced.
local function increment(key, field, by)
  local value = redis.pcall('HINCRBY', key, field, by)
  if type(value) == 'number' then return value end
  redis.call('HSET', key, field, by)
  return by
end

-- Changes of run counters are summed up and written when the verb is done, so that a hundred evaluations of a run cost as
-- many writes as one.
local changes = {}

-- Add to a counter of each run in a list.
local function count(list, field, by)
  for _, run in ipairs(list) do
    local change = changes[run]
    if not change then
      change = {}
      changes[run] = change
    end
    change[field] = (change[field] or 0) + by
  end
end

-- Write the counters. A part such as unchanged:archived also counts for its whole, unchanged.
local function write_counters()
  for run, change in pairs(changes) do
    for field, by in pairs(change) do
      if by ~= 0 then increment(run_key(run), field, by) end
      local whole = string.match(field, '^(.+):')
      if whole then increment(run_key(run), whole, by) end
    end
    redis.call('HSET', run_key(run), 'changed', string.format('%.0f', now))
  end
end
