-- What a worker does with the evaluations that it leases.

-- Remember how far a queue has been worked off.
local function record_progress(queue, since)
  local before = redis.call('HGET', KEYS[11], queue)
  if not before or tonumber(since) > tonumber(before) then redis.call('HSET', KEYS[11], queue, since) end
end

-- Return the state that an evaluation which is not queued may be taken from, if it may.
local function leasable_state(id)
  local ends, due = redis.call('ZSCORE', leased, id), redis.call('ZSCORE', parked, id)
  if ends and tonumber(ends) <= now then return 'leased' end
  return due and tonumber(due) <= now and 'parked'
end

-- lease, token, id... -> for each: the job, or '' where there is nothing to do
function verbs.lease(lease, token, ...)
  local ids, answer, taken, alike, since, scores = { ... }, {}, {}, {}, {}, {}
  local texts, ends = read_wanted(ids), now + tonumber(lease)
  local some_on_hold = redis.call('EXISTS', refused) == 1
  for i, id in ipairs(ids) do
    local text = not taken[id] and texts[i]
    -- Evaluations of one order have the same job, and so has what is made of it here.
    local made = text and alike[text]
    if text and not made then
      local job = cjson.decode(text)
      job.lease = token
      made = { job = job, text = cjson.encode(job), waits = some_on_hold and waits_for_runs(job) }
      alike[text] = made
    end
    local queue = made and made.job.queue
    if queue and not scores[queue] then scores[queue] = read_all('ZMSCORE', queued[queue], ids) end
    local score = queue and scores[queue][i]
    local from = score and 'queued' or made and leasable_state(id)
    answer[i] = from and made.text or ''
    if score then since[queue] = score end
    if from and made.waits then
      hold_for_runs(id, texts[i], from)
      taken[id], from, answer[i] = true, nil, ''
    elseif from == 'leased' then
      local job = cjson.decode(made.text)
      job.lost = job.lost + 1
      answer[i] = cjson.encode(job)
    end
    if from then
      taken[id] = true
      batch_write('HSET', entries, id, answer[i])
      if from ~= 'leased' then batch_write('ZREM', state_key(made.job, from), id) end
      batch_write('ZADD', leased, ends, id)
      count(made.job.runs, from, -1)
      count(made.job.runs, 'leased', 1)
    end
  end
  for queue, score in pairs(since) do record_progress(queue, score) end
  return answer
end

-- lease, then (id, token)... -> the IDs whose lease is no longer ours
function verbs.extend(lease, ...)
  local pairs_, lost = { ... }, {}
  for i = 1, #pairs_, 2 do
    if owned_job(pairs_[i], pairs_[i + 1]) then
      redis.call('ZADD', leased, 'XX', now + tonumber(lease), pairs_[i])
    else
      lost[#lost + 1] = pairs_[i]
    end
  end
  return lost
end

-- -> milliseconds since it was accepted, wanted live, or redriven, at least 1; 0 where the lease is no longer ours
local function complete_one(token, id, ending, job)
  if job.lease ~= token then return 0 end
  -- Only if RiskOS answered otherwise than the manifest says, the answer follows: unchanged:archived:not_found.
  local outcome, answer = string.match(ending, '^([%w_]+:[%w_]+):([%w_]+)$')
  outcome = outcome or ending
  count(job.runs, outcome, 1)
  note_answer(id, job, outcome, answer)
  if job.again then
    finish_job(id, job, 'leased')
  else
    count(job.runs, 'leased', -1)
    batch_write('ZREM', leased, id)
    batch_write('HDEL', entries, id)
  end
  return math.max(1, now - (job.asked or job.accepted))
end

-- (token, id, ending)... -> for each: what `complete_one` says, -1 where the job cannot be read: one that is damaged must
-- not keep those beside it, whose counters are written when all is done, from their end.
function verbs.complete(...)
  local ends, ids, answer, settled, alike = { ... }, {}, {}, {}, {}
  for i = 2, #ends, 3 do ids[#ids + 1] = ends[i] end
  local texts = read_all('HMGET', entries, ids)
  for i, id in ipairs(ids) do
    local text, read, said = not settled[id] and texts[i], true, 0
    local job = text and alike[text]
    if text and not job then
      read, job = pcall(cjson.decode, text)
      if read then alike[text] = job end
    end
    if text and read then read, said = pcall(complete_one, ends[3 * i - 2], id, ends[3 * i], job) end
    settled[id] = read and said > 0
    answer[i] = read and said or -1
  end
  write_answers()
  return answer
end

-- token, id, wait, attempts, cause, why, status, request_id -> 1, or 0 where the lease is no longer ours
function verbs.retry_later(token, id, wait, attempts, cause, why, status)
  local job = owned_job(id, token)
  if not job then return 0 end
  job.lease, job.attempts, job.cause = nil, tonumber(attempts), cause
  job.suspect, job.first, job.forbidden = true, job.first or now, job.forbidden or cause == 'forbidden' and now or nil
  put_back(id, job, 'parked', now + tonumber(wait))
  return 1
end

-- token, id, cause, suspect (0|1) -> 1, or 0 where the lease is no longer ours
function verbs.await_hold(token, id, cause, suspect)
  local job = owned_job(id, token)
  if not job then return 0 end
  job.lease, job.cause = nil, cause
  if suspect == '1' then job.suspect, job.first = true, job.first or now end
  -- Where only room is wanting there is no probe to carry, and those that failed before are not kept back for it.
  local last = job.suspect and cause ~= 'account_busy'
  put_back(id, job, 'held', last and now + LAST or now)
  return 1
end

-- id...: an outage was to blame; those that are parked get an attempt back and wait for its end
function verbs.refund_attempts(...)
  for _, id in ipairs({ ... }) do
    local job = redis.call('ZSCORE', parked, id) and load(id)
    if job and job.attempts > 0 then
      job.attempts = job.attempts - 1
      save(id, job)
      move(id, job, 'held', now + LAST, 'parked')
    end
  end
end

-- token, id -> 1, or 0 where the lease is no longer ours
function verbs.release(token, id)
  local job = owned_job(id, token)
  if not job then return 0 end
  job.lease = nil
  put_back(id, job, 'queued', now)
  return 1
end

-- token, id, outcome, attempts, cause, why, status, request_id -> 1, or 0 where the lease is no longer ours
function verbs.dead_letter(token, id, outcome, attempts, cause, why, status, request_id)
  local job = owned_job(id, token)
  if not job then return 0 end
  count(job.runs, outcome, 1)
  -- What has been asked for again meanwhile is no dead letter: it starts anew.
  if not job.again then
    redis.call('HSET', dead, id, cjson.encode({ cause = cause, why = why, status = tonumber(status),
      request_id = request_id ~= '' and request_id or nil, attempts = tonumber(attempts), account = job.account,
      queue = job.queue, refresh = job.refresh, refresh_outcomes = job.refresh_outcomes,
      even_if_erased = job.even_if_erased, accepted = job.accepted, first = job.first or now, last = now,
      trigger = job.trigger, evidence = job.evidence, event_at = job.event_at, without_request = job.without_request,
      runs = job.runs, unnamed = job.unnamed }))
    redis.call('ZADD', KEYS[16] .. cause, now, id)
    redis.call('ZINCRBY', KEYS[15], 1, cause)
  end
  finish_job(id, job, 'leased')
  return 1
end
