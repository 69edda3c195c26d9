-- Cancel evaluations: those of a run for that run, or some by ID for all their orders.
--
-- An evaluation in flight stays with its worker. The field `cancelled` of its job records for which runs it was cancelled
-- ('' for orders without a run), and whether by the 'run' or by the 'id'. It is not processed again for them.
--
-- Keys: cancelled, cancelling, entries, feeding, leased, lists, now, reached, refused, run_key, runs, sets_of,
--   taken_back, verbs.
-- Uses: MAX_ARGS, batch_write, count, get_number, increment, read_all (writes); contains, finish_job, load, move,
--   read_job, save, state_of (jobs).

local STEP, MOST_TAKEN_BACK = 2000, 1000000

-- Count evaluations in a state as cancelled for each run in a list.
local function count_cancelled(list, state, number)
  count(list, state, -number)
  count(list, 'cancelled', number)
end

-- Return the runs of a list that are not in `names`, and count the evaluation as cancelled for the others.
local function without(list, names, state)
  local kept = {}
  for _, run in ipairs(list) do
    if names[run] then count_cancelled({ run }, state, 1) else kept[#kept + 1] = run end
  end
  return kept
end

local function is_every_run_in(list, names)
  for _, run in ipairs(list) do
    if not names[run] then return false end
  end
  return true
end

-- Cancel the next attempt, which follows the one in flight, for the orders of the runs in `names`.
local function cancel_again(job, names)
  local again, orders = job.again, {}
  if not again then return end
  for _, run in ipairs(again.orders or again.runs) do
    if not names[run] then orders[#orders + 1] = run end
  end
  again.orders, again.runs = orders, without(again.runs, names, 'queued')
  if #orders == 0 then job.again = nil end
end

-- Cancel an evaluation in a state for the runs in `names` ('' for orders without a run). It stays for other orders.
local function cancel_waiting(id, job, state, names)
  local is_unnamed = (job.unnamed or #job.runs == 0) and not names['']
  job.runs = without(job.runs, names, state)
  job.unnamed, job.cancelled = is_unnamed or nil, nil
  if #job.runs > 0 or is_unnamed then return save(id, job) end
  if not job.again then batch_write('ZADD', taken_back, now, id) end
  finish_job(id, job)
end

-- Return whether a worker has an evaluation, with a lease that has not run out.
local function is_in_flight(id)
  local ends = redis.call('ZSCORE', leased, id)
  return ends and tonumber(ends) > now
end

-- Return 1 if an evaluation was cancelled, 2 if it is in flight and its attempt continues, 0 if it is not in the ledger.
local function cancel_one(id, names)
  local job = load(id)
  if not job then return 0 end
  cancel_again(job, names)
  if not is_in_flight(id) then
    cancel_waiting(id, job, state_of(id, job), names)
    return 1
  end
  local answer = 1
  job.cancelled = job.cancelled or {}
  for name, what in pairs(names) do
    if name == '' or contains(job.runs, name) then job.cancelled[name], answer = what, 2 end
  end
  save(id, job)
  return answer
end

-- Cancel evaluations that have the same account and runs, a command for each set.
local function cancel_alike(job, ids)
  for start = 1, #ids, MAX_ARGS do
    local last = math.min(start + MAX_ARGS - 1, #ids)
    for _, set in ipairs(sets_of(job)) do
      local removed = redis.call('ZREM', set[2], unpack(ids, start, last))
      if removed > 0 then count_cancelled(job.runs, set[1], removed) end
    end
    redis.call('HDEL', entries, unpack(ids, start, last))
  end
  for _, id in ipairs(ids) do batch_write('ZADD', taken_back, now, id) end
end

-- Return whether a job is not leased, and all its orders are cancelled. Most evaluations of a run are like that.
local function is_simple(job, names)
  local is_unnamed = job.unnamed or #job.runs == 0
  return not job.lease and not job.again and is_every_run_in(job.runs, names) and (names[''] or not is_unnamed)
end

-- Cancel evaluations for the names that `names_of` returns for each job, if any.
-- Return the answer of `cancel_one` for each, or 0. Jobs of one order have the same text, which is decoded once.
local function cancel_each(ids, texts, names_of)
  redis.call('ZREMRANGEBYRANK', taken_back, 0, -MOST_TAKEN_BACK - 1)
  local answer, known, alike = {}, {}, {}
  for i, id in ipairs(ids) do
    local made = texts[i] and known[texts[i]]
    local job = texts[i] and not made and read_job(id, texts[i])
    if job then
      made = { names = names_of(job) }
      if made.names and is_simple(job, made.names) then
        local group = job.account .. ' ' .. table.concat(job.runs, ' ')
        made.alike = alike[group] or { job = job, ids = {} }
        alike[group] = made.alike
      end
      known[texts[i]] = made
    end
    answer[i] = made and made.names and 1 or 0
    if made and made.alike then
      made.alike.ids[#made.alike.ids + 1] = id
    elseif answer[i] == 1 then
      answer[i] = cancel_one(id, made.names)
    end
  end
  for _, each in pairs(alike) do cancel_alike(each.job, each.ids) end
  return answer
end

-- End the list of a run. With the last list, forget the evaluations that were cancelled before they were fed.
local function end_list(run)
  redis.call('ZREM', feeding, run)
  if redis.call('ZREM', lists, run) == 1 and redis.call('EXISTS', lists) == 0 then redis.call('UNLINK', cancelled) end
end

-- run -> how many of its list were not fed and are now cancelled, -1 if the run is unknown
-- From now on no evaluation is fed or leased for the run.
function verbs.cancel_list(run)
  local key = run_key(run)
  if redis.call('ZSCORE', runs, run) == false then return -1 end
  local unfed = get_number(key, 'unfed')
  redis.call('ZADD', cancelling, 'NX', now, run)
  redis.call('ZREM', refused, run)
  if redis.call('HEXISTS', key, 'listed') == 1 then redis.call('HSETNX', key, 'cancelled_at', string.format('%.0f', now)) end
  count_cancelled({ run }, 'unfed', unfed)
  end_list(run)
  return unfed
end

-- run, cursor -> the next cursor, '0' at the end, and how many were cancelled
-- While the hash shrinks, HSCAN may return an entry in flight more than once.
function verbs.cancel_some(run, cursor)
  local page = redis.call('HSCAN', entries, cursor, 'COUNT', STEP)
  local ids, texts, named = {}, {}, cjson.encode(run)
  for i = 1, #page[2], 2 do
    -- A text that does not contain the run's name need not be decoded.
    if string.find(page[2][i + 1], named, 1, true) then
      ids[#ids + 1], texts[#texts + 1] = page[2][i], page[2][i + 1]
    end
  end
  local found, names = { 0, 0 }, { [run] = redis.call('HEXISTS', run_key(run), 'cancelled_at') == 1 and 'run' or 'id' }
  for _, each in ipairs(cancel_each(ids, texts, function(job)
    return (contains(job.runs, run) or job.again and contains(job.again.orders or job.again.runs, run)) and names
  end)) do
    if each > 0 then found[each] = found[each] + 1 end
  end
  if found[2] > 0 then increment(reached, 'cancellations', 1) end
  if page[1] == '0' then redis.call('ZREM', cancelling, run) end
  return { page[1], found[1] }
end

-- id... -> for each: 1 if it was cancelled for all orders, 2 if it is in flight, 0 if the ledger does not have it
function verbs.cancel(...)
  local ids, number = { ... }, increment(reached, 'cancellations', 1)
  if redis.call('EXISTS', lists) == 1 then
    for _, id in ipairs(ids) do batch_write('ZADD', cancelled, number, id) end
  end
  return cancel_each(ids, read_all('HMGET', entries, ids), function(job)
    local names = { [''] = 'id' }
    for _, list in ipairs({ job.runs, job.again and (job.again.orders or job.again.runs) or {} }) do
      for _, run in ipairs(list) do names[run] = 'id' end
    end
    return names
  end)
end

-- Return the runs ('' for orders without one) that a job was cancelled for while it was in flight, and its runs that are
-- being cancelled. A run that has begun again since then wants the evaluation.
local function names_cancelled(job)
  local names = {}
  for name, what in pairs(job.cancelled or {}) do
    if what == 'id' or redis.call('HEXISTS', run_key(name), 'cancelled_at') == 1 then names[name] = what end
  end
  for _, run in ipairs(job.runs) do
    if redis.call('ZSCORE', cancelling, run) then names[run] = 'run' end
  end
  return names
end

-- id... -> those in flight that were cancelled for all their orders
function verbs.unwanted(...)
  local found = {}
  for _, id in ipairs({ ... }) do
    local job = load(id)
    local names = job and job.cancelled and names_cancelled(job)
    local is_unnamed = job and (job.unnamed or #job.runs == 0)
    if names and is_every_run_in(job.runs, names) and (names[''] or not is_unnamed) then found[#found + 1] = id end
  end
  return found
end

-- Return the texts of evaluations; those that were cancelled are removed from the ledger first. An ID may be named twice.
local function read_wanted(ids)
  local texts, is_cancelling = read_all('HMGET', entries, ids), redis.call('EXISTS', cancelling) == 1
  local current = {}
  for i, id in ipairs(ids) do
    if texts[i] and (is_cancelling or string.find(texts[i], '"cancelled"', 1, true)) then
      if current[id] == nil then
        local job = load(id)
        local names = job and not is_in_flight(id) and names_cancelled(job)
        if names and next(names) then cancel_waiting(id, job, state_of(id, job), names) end
        current[id] = redis.call('HGET', entries, id)
      end
      texts[i] = current[id]
    end
  end
  return texts
end

-- Move an evaluation in flight to another state, unless it was cancelled for all its orders during its attempt.
local function put_back(id, job, state, score)
  local names = names_cancelled(job)
  job.cancelled = nil
  if next(names) then cancel_waiting(id, job, 'leased', names) else save(id, job) end
  if redis.call('ZSCORE', leased, id) then move(id, job, state, score, 'leased') end
end

-- Return the IDs of a list to accept, and their positions in it. Those that were cancelled since the run began are left
-- out, and count as cancelled.
local function select_wanted(run, ids)
  local numbers, wanted, positions = {}, {}, {}
  if redis.call('EXISTS', cancelled) == 1 then numbers = read_all('ZMSCORE', cancelled, ids) end
  local begun = get_number(run_key(run), 'cancellations')
  for i, id in ipairs(ids) do
    if not numbers[i] or tonumber(numbers[i]) <= begun then
      wanted[#wanted + 1], positions[#positions + 1] = id, i
    else
      batch_write('ZADD', taken_back, now, id)
    end
  end
  count({ run }, 'cancelled', #ids - #wanted)
  return wanted, positions
end
