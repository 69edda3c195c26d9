-- Accept evaluations of orders, and of the lists of runs.
--
-- Keys: WEEK, cancelling, damaged, dead, entries, event_key, feeding, held, held_by_runs, leased, lists, now, queued,
--   reached, refused, run_key, runs, state_key, taken_back, verbs.
-- Uses: batch_write, count, get_number, increment, read_all, to_number, write_all (writes); add_facts, add_to_list,
--   contains, covered_until, due_of, has_damaged, index_run, join_run, later, load, move, pop_dead_letter, save, state_of,
--   waits_for_runs (jobs); end_list, select_wanted (cancel).

-- Return whether facts have evidence about missing documents that the worker with this job does not know.
local function has_new_evidence(job, facts)
  local known = job.evidence or {}
  for _, item in ipairs(facts and facts.evidence or {}) do
    local refutes_nothing = item == 'docv_step' and not contains(known, 'no_docv_step')
    if not contains(known, item) and not refutes_nothing then return true end
  end
  return false
end

-- A run counts an evaluation of its list once. If it failed for the run before the list began again, it is pending again.
local function uncount_failure(letter, order)
  if not order.listed or not contains(letter.runs, order.run) then return end
  count({ order.run }, 'failed', -1)
  count({ order.run }, 'total', -1)
end

-- Return the job of the new evaluations of an order, and its text. They all have the same job, which is made once.
local function job_of_order(order)
  if order.job then return order.job, order.text end
  order.job = { queue = order.queue, account = order.account, refresh = order.refresh,
                even_if_erased = order.even_if_erased, attempts = 0, lost = 0, accepted = now,
                without_request = order.without_request, trigger = order.trigger, trace = order.trace, runs = {} }
  if order.run ~= '' then
    order.job.runs[1] = order.run
    index_run(order.run, order.account)
  end
  add_to_list(order.job, 'refresh_outcomes', order.refresh_outcomes)
  order.text = cjson.encode(order.job)
  return order.job, order.text
end

-- Accept an evaluation that is not in the ledger. Return 1 to publish it now, 2 if it is parked first.
local function accept_new(id, order, dead_before)
  local common, text = job_of_order(order)
  local facts, letter = order.facts and order.facts[id], dead_before and pop_dead_letter(id)
  if has_damaged then redis.call('HDEL', damaged, id) end
  if letter then uncount_failure(letter, order) end
  if facts or letter then
    local job = cjson.decode(text)
    if letter then job.suspect = true end
    add_facts(job, letter)
    add_facts(job, facts)
    text = cjson.encode(job)
  end
  local state = order.delay > 0 and 'parked' or 'queued'
  batch_write('HSET', entries, id, text)
  batch_write('ZADD', state_key(common, state), now + order.delay, id)
  if not order.listed then count(common.runs, 'total', 1) end
  count(common.runs, state, 1)
  return state == 'queued' and 1 or 2
end

-- Mark a job if an order without a run wants the evaluation, so that a hold on a run does not stop it.
local function mark_without_run(job, run)
  if run == '' or #job.runs == 0 then job.unnamed = true end
end

-- Return whether the attempt in flight cannot satisfy an order.
local function wants_another_attempt(job, order, facts)
  return order.refresh or order.refresh_outcomes or order.even_if_erased or has_new_evidence(job, facts)
    or job.without_request and not order.without_request
end

-- Order another attempt for an evaluation, after the attempt in flight.
local function merge_into_next_attempt(job, order, facts)
  local run = order.run
  if job.again then mark_without_run(job.again, run) end
  local again = job.again or { queue = order.queue, trigger = order.trigger, trace = order.trace, runs = {}, due = 0,
                               refresh = false, without_request = order.without_request }
  job.again = again
  again.refresh = again.refresh ~= false or order.refresh or order.even_if_erased ~= nil and not order.refresh_outcomes
  again.due, again.accepted = math.max(due_of(again), now + order.delay), now
  again.even_if_erased = later(covered_until(again.even_if_erased, job.accepted), order.even_if_erased)
  again.without_request = again.without_request and order.without_request
  if order.queue == 'live' then again.queue = 'live' end
  again.orders = again.orders or {}
  if not contains(again.orders, run) then again.orders[#again.orders + 1] = run end
  add_to_list(again, 'refresh_outcomes', order.refresh_outcomes)
  add_facts(job, facts)
  -- A run that already waits for the evaluation counts one outcome, that of the attempt in flight.
  if join_run(job, again.runs, run, order.listed) then count({ run }, 'queued', 1) end
end

-- Move an evaluation from the backfill queue to the live queue, so that it does not wait behind a backfill.
-- Return whether to publish it.
local function make_live(id, job)
  local held_since = redis.call('ZSCORE', held('backfill', job.account), id)
  local is_queued = redis.call('ZSCORE', queued.backfill, id)
  job.queue, job.asked = 'live', now
  if is_queued then
    move(id, job, 'queued', now)
  elseif held_since then
    move(id, job, 'held', held_since)
  end
  return is_queued and true or false
end

-- Merge an order into the job of an evaluation; return whether to publish it.
local function merge_into_job(id, job, order, facts)
  mark_without_run(job, order.run)
  job.refresh = job.refresh or order.refresh
  job.even_if_erased = later(covered_until(job.even_if_erased, job.accepted), order.even_if_erased)
  job.without_request = job.without_request and order.without_request
  add_to_list(job, 'refresh_outcomes', order.refresh_outcomes)
  add_facts(job, facts)
  if join_run(job, job.runs, order.run, order.listed) then count({ order.run }, state_of(id, job), 1) end
  local publish = order.queue == 'live' and job.queue == 'backfill' and make_live(id, job)
  if redis.call('ZSCORE', held_by_runs, id) and not waits_for_runs(job) then
    move(id, job, 'queued', now)
    publish = true
  end
  return publish
end

-- Accept an evaluation that is in the ledger already; return whether to publish it.
local function accept_known(id, job, order)
  local publish, facts = false, order.facts and order.facts[id]
  if job.cancelled then job.cancelled[order.run] = nil end
  if wants_another_attempt(job, order, facts) and redis.call('ZSCORE', leased, id) then
    merge_into_next_attempt(job, order, facts)
  else
    publish = merge_into_job(id, job, order, facts)
  end
  save(id, job)
  return publish
end

-- order: JSON with queue, account, delay, refresh, refresh_outcomes, even_if_erased (true, or the time of the order), run,
--   trigger, without_request, listed, trace, facts (eval_id -> evidence, event_at)
--   -> for each ID: 1 publish it now, 2 it is new and parked first, 0 neither
local function accept_all(ids, order)
  local answer, new = {}, {}
  local texts, letters = read_all('HMGET', entries, ids), {}
  if redis.call('HLEN', dead) > 0 then letters = read_all('HMGET', dead, ids) end
  order = cjson.decode(order)
  order.even_if_erased = covered_until(order.even_if_erased, now)
  if order.listed and order.even_if_erased then
    -- The clock of the machine that began the run may be ahead of Redis's.
    order.even_if_erased = math.min(order.even_if_erased, tonumber(redis.call('ZSCORE', runs, order.run) or now))
  end
  for i, id in ipairs(ids) do
    if new[id] then write_all() end
    local job = (texts[i] or new[id]) and load(id)
    if job then
      answer[i] = accept_known(id, job, order) and 1 or 0
    else
      new[id] = true
      answer[i] = accept_new(id, order, letters[i])
    end
  end
  if redis.call('EXISTS', taken_back) == 1 then
    -- A full Redis refuses only the first write of a script, so these come last.
    write_all()
    for _, id in ipairs(ids) do batch_write('ZREM', taken_back, id) end
  end
  return answer
end

-- event (or ''), order, id... -> as accept_all, or nothing if the event was accepted before
function verbs.accept(event, order, ...)
  if event ~= '' and not redis.call('SET', event_key(event), 1, 'NX', 'EX', WEEK) then
    -- WAIT covers only what its connection has written. This write makes it cover the earlier one of the same event.
    redis.call('EXPIRE', event_key(event), WEEK)
    return {}
  end
  return accept_all({ ... }, order)
end

-- Let feeders feed the rest of a run's list, if there is any.
local function feed_from_list(run)
  if get_number(run_key(run), 'unfed') > 0 then redis.call('ZADD', feeding, 'NX', now, run) end
end

-- Begin a cancelled run from the start of its list. Its evaluations in the ledger and its dead letters are still counted,
-- although the list has most of them, too.
local function begin_again(run, key, total, account)
  local fields = { 'queued', 'leased', 'parked', 'held', 'failed' }
  local kept, sum = redis.call('HMGET', key, unpack(fields)), tonumber(total)
  for _, number in ipairs(kept) do sum = sum + to_number(number) end
  local fingerprint = redis.call('HGET', key, 'listed')
  redis.call('DEL', key)
  redis.call('HSET', key, 'listed', fingerprint, 'total', sum, 'unfed', total, 'fed', 0, 'account', account)
  for i, field in ipairs(fields) do redis.call('HSET', key, field, to_number(kept[i])) end
  redis.call('ZADD', runs, now, run)
  redis.call('ZREM', cancelling, run)
end

-- run, total, fingerprint, account, again (0|1: begin a cancelled run again) -> 'begun', 'known' if it had begun before,
-- 'taken' if the run has another list, 'cancelled' if it was cancelled and `again` is 0
function verbs.begin(run, total, fingerprint, account, again)
  local key = run_key(run)
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
    -- As for a repeated event, WAIT needs a write of this connection.
    redis.call('HSET', key, 'listed', fingerprint)
  end
  if answer == 'begun' then
    redis.call('HSET', key, 'cancellations', redis.call('HGET', reached, 'cancellations') or 0)
    redis.call('ZADD', lists, now, run)
  end
  if not redis.call('ZSCORE', refused, run) then feed_from_list(run) end
  return answer
end

-- run -> 1 if it was on hold for its refusals, or 0. From now on refusals never put it on hold.
function verbs.accept_refusals(run)
  redis.call('HSET', run_key(run), 'refusals_accepted', 1)
  if redis.call('ZREM', refused, run) == 0 then return 0 end
  redis.call('HSET', reached, 'refusals_accepted', string.format('%.0f', now))
  feed_from_list(run)
  return 1
end

-- run, position of the first ID in its list, backlog, order, id... -> as accept_all, or nothing if the ledger has reached
-- the backlog, another feeder fed these, or the run was cancelled
function verbs.feed(run, position, backlog, order, ...)
  local key, ids = run_key(run), { ... }
  if redis.call('HGET', key, 'fed') ~= position or redis.call('HEXISTS', key, 'cancelled_at') == 1 then return {} end
  if redis.call('HLEN', entries) >= tonumber(backlog) then return {} end
  local wanted, positions = select_wanted(run, ids)
  local answer = {}
  for i = 1, #ids do answer[i] = 0 end
  for i, flag in ipairs(accept_all(wanted, order)) do answer[positions[i]] = flag end
  increment(key, 'fed', #ids)
  if increment(key, 'unfed', -#ids) <= 0 then end_list(run) end
  return answer
end
