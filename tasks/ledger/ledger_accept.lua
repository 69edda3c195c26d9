-- Accept evaluations, of orders and of the lists of runs.

-- Return whether facts say something about missing documents that the worker with this job does not know.
local function has_new_evidence(job, facts)
  local known = job.evidence or {}
  for _, item in ipairs(facts and facts.evidence or {}) do
    local refutes_nothing = item == 'docv_step' and not contains(known, 'no_docv_step')
    if not contains(known, item) and not refutes_nothing then return true end
  end
  return false
end

-- A run counts an evaluation of its list once: if it failed for the run before the list began again, it is pending now.
local function take_failure_back(letter, order)
  if not order.listed or not contains(letter.runs, order.run) then return end
  count({ order.run }, 'failed', -1)
  count({ order.run }, 'total', -1)
end

-- Accept an evaluation that the ledger does not know; those of an order are all alike, so their job is made once.
-- Return 1 to publish it now, 2 if it is parked first.
local function accept_new(id, order, dead_before)
  if not order.job then
    order.job = { queue = order.queue, account = order.account, refresh = order.refresh,
                    even_if_erased = order.even_if_erased or nil, attempts = 0, lost = 0, accepted = now,
                    without_request = order.without_request, trigger = order.trigger, trace = order.trace, runs = {} }
    if order.run ~= '' then
      order.job.runs[1] = order.run
      index_run(order.run, order.account)
    end
    add_to_list(order.job, 'refresh_outcomes', order.refresh_outcomes)
    order.text = cjson.encode(order.job)
  end
  local text, facts, letter = order.text, order.facts and order.facts[id], dead_before and pop_dead_letter(id)
  if letter then take_failure_back(letter, order) end
  if facts or letter then
    local job = cjson.decode(text)
    if letter then job.suspect = true end
    add_facts(job, letter)
    add_facts(job, facts)
    text = cjson.encode(job)
  end
  local state = order.delay > 0 and 'parked' or 'queued'
  batch_write('HSET', entries, id, text)
  batch_write('ZADD', state_key(order.job, state), now + order.delay, id)
  if not order.listed then count(order.job.runs, 'total', 1) end
  count(order.job.runs, state, 1)
  return state == 'queued' and 1 or 2
end

-- If an order without a run is among those that want an evaluation, no run's hold stops it.
local function note_unnamed(job, run)
  if run == '' or #job.runs == 0 then job.unnamed = true end
end

-- Return whether an attempt that is under way cannot do what an order wants.
local function wants_another_attempt(job, order, facts)
  return order.refresh or order.refresh_outcomes or order.even_if_erased or has_new_evidence(job, facts)
    or job.without_request and not order.without_request
end

-- Accept an evaluation that is in the ledger already; return whether to publish it.
local function accept_known(id, job, order)
  local publish, run, facts = false, order.run, order.facts and order.facts[id]
  if job.cancelled then job.cancelled[run] = nil end
  if wants_another_attempt(job, order, facts) and redis.call('ZSCORE', leased, id) then
    if job.again then note_unnamed(job.again, run) end
    local again = job.again or { queue = order.queue, trigger = order.trigger, trace = order.trace, runs = {}, due = 0,
                                 refresh = false, without_request = order.without_request }
    job.again = again
    again.refresh = again.refresh ~= false or order.refresh or order.even_if_erased and not order.refresh_outcomes
    again.due = math.max(again.due, now + order.delay)
    again.even_if_erased = again.even_if_erased or order.even_if_erased or nil
    again.without_request = again.without_request and order.without_request
    if order.queue == 'live' then again.queue = 'live' end
    again.orders = again.orders or {}
    if not contains(again.orders, run) then again.orders[#again.orders + 1] = run end
    add_to_list(again, 'refresh_outcomes', order.refresh_outcomes)
    add_facts(job, facts)
    -- A run that waits for it already gets one outcome, that of the attempt under way.
    if join_run(job, again.runs, run, order.listed) then count({ run }, 'queued', 1) end
  else
    note_unnamed(job, run)
    job.refresh = job.refresh or order.refresh
    job.even_if_erased = job.even_if_erased or order.even_if_erased or nil
    job.without_request = job.without_request and order.without_request
    add_to_list(job, 'refresh_outcomes', order.refresh_outcomes)
    add_facts(job, facts)
    if join_run(job, job.runs, run, order.listed) then count({ run }, state_of(id, job), 1) end
    -- What is live does not wait behind a backfill that named it first.
    if order.queue == 'live' and job.queue == 'backfill' then
      local since = redis.call('ZSCORE', held('backfill', job.account), id)
      local waits = redis.call('ZSCORE', queued.backfill, id)
      job.queue, job.asked = 'live', now
      if waits then
        move(id, job, 'queued', now)
        publish = true
      elseif since then
        move(id, job, 'held', since)
      end
    end
    if redis.call('ZSCORE', held_by_runs, id) and not waits_for_runs(job) then
      move(id, job, 'queued', now)
      publish = true
    end
  end
  save(id, job)
  return publish
end

-- order: queue, account, delay, refresh, refresh_outcomes, even_if_erased, without_request, run, trigger, listed, trace,
--   facts (eval_id -> evidence, event_at)
--   -> for each ID: 1 publish it, 2 it is new and parked first, 0 no need
local function accept_all(ids, order)
  local answer, new = {}, {}
  local texts, letters = read_all('HMGET', entries, ids), {}
  if redis.call('HLEN', dead) > 0 then letters = read_all('HMGET', dead, ids) end
  order = cjson.decode(order)
  for i, id in ipairs(ids) do
    if texts[i] or new[id] then
      if new[id] then write_all() end
      answer[i] = accept_known(id, load(id), order) and 1 or 0
    else
      new[id] = true
      answer[i] = accept_new(id, order, letters[i])
    end
  end
  return answer
end

-- event (or ''), order, id... -> as accept_all; nothing where the event has been accepted before
function verbs.accept(event, order, ...)
  if event ~= '' and not redis.call('SET', KEYS[14] .. event, 1, 'NX', 'EX', WEEK) then
    -- Replicas are waited for by what was written: this is, so that an event which they had not yet is asked for, too.
    redis.call('EXPIRE', KEYS[14] .. event, WEEK)
    return {}
  end
  return accept_all({ ... }, order)
end

-- Feed the ledger from the list of a run, if any of it is left.
local function feed_from_list(run)
  local unfed = tonumber(redis.call('HGET', KEYS[10] .. run, 'unfed') or 0)
  if unfed > 0 then redis.call('ZADD', feeding, 'NX', now, run) end
end

-- Begin a run that was cancelled from the start of its list. What it still has in the ledger, and its dead letters, are
-- counted on; the list names most of them again.
local function begin_again(run, key, total, account)
  local states = { 'queued', 'leased', 'parked', 'held', 'failed' }
  local kept, sum = redis.call('HMGET', key, unpack(states)), tonumber(total)
  for _, number in ipairs(kept) do sum = sum + tonumber(number or 0) end
  local fingerprint = redis.call('HGET', key, 'listed')
  redis.call('DEL', key)
  redis.call('HSET', key, 'listed', fingerprint, 'total', sum, 'unfed', total, 'fed', 0, 'account', account)
  for i, state in ipairs(states) do redis.call('HSET', key, state, kept[i] or 0) end
  redis.call('ZADD', runs, now, run)
  redis.call('ZREM', cancelling, run)
end

-- run, total, fingerprint, account, again (0|1): if it was cancelled -> 'begun', 'known' where it was begun before, 'taken'
-- where the name means other IDs, 'cancelled' if it was and is not to begin again
function verbs.begin(run, total, fingerprint, account, again)
  local key = KEYS[10] .. run
  local known = redis.call('HMGET', key, 'total', 'listed', 'cancelled_at')
  local answer = 'known'
  if not known[1] then
    redis.call('HSET', key, 'listed', fingerprint, 'total', total, 'unfed', total, 'fed', 0)
    index_run(run, account)
    answer = 'begun'
  elseif known[2] ~= fingerprint then
    return 'taken'
  elseif known[3] then
    if again == '0' then return 'cancelled' end
    begin_again(run, key, total, account)
    answer = 'begun'
  else
    -- As with an event that comes again: what replicas are to have has to be written.
    redis.call('HSET', key, 'listed', fingerprint)
  end
  if answer == 'begun' then
    redis.call('HSET', key, 'cancellations', redis.call('HGET', KEYS[11], 'cancellations') or 0)
    redis.call('ZADD', lists, now, run)
  end
  if not redis.call('ZSCORE', refused, run) then feed_from_list(run) end
  return answer
end

-- run -> 1 if it was on hold for its refusals. From now on no number of refusals puts it on hold.
function verbs.accept_refusals(run)
  redis.call('HSET', KEYS[10] .. run, 'refusals_accepted', 1)
  if redis.call('ZREM', refused, run) == 0 then return 0 end
  redis.call('HSET', KEYS[11], 'refusals_accepted', string.format('%.0f', now))
  feed_from_list(run)
  return 1
end

-- run, position of the first ID in its list, backlog, order, id... -> as accept_all; nothing where the ledger is full,
-- or somebody else fed these, or the run was cancelled
function verbs.feed(run, position, backlog, order, ...)
  local key, ids = KEYS[10] .. run, { ... }
  if redis.call('HGET', key, 'fed') ~= position or redis.call('HEXISTS', key, 'cancelled_at') == 1 then return {} end
  if redis.call('HLEN', entries) >= tonumber(backlog) then return {} end
  local wanted, places = select_wanted(run, ids)
  local answer = {}
  for i = 1, #ids do answer[i] = 0 end
  for i, flag in ipairs(accept_all(wanted, order)) do answer[places[i]] = flag end
  redis.call('HINCRBY', key, 'fed', #ids)
  if redis.call('HINCRBY', key, 'unfed', -#ids) <= 0 then end_list(run) end
  return answer
end
