-- Lease evaluations to workers, and record the result of each attempt.
--
-- Keys: LAST, causes, dead, entries, leased, letters_key, now, parked, queue_of, queued, reached, refused, state_key,
--   verbs.
-- Uses: batch_write, count, get_number, read_all (writes); copy_without, finish_job, hold_for_runs, load, move,
--   owned_job, read_job, save, waits_for_runs (jobs); put_back, read_wanted (cancel); record_answer, write_answers
--   (refusals).

-- Record when the newest evaluation that was leased from a queue had been queued. If that is later than now, Redis's
-- clock was set back, and it would overtake every evaluation that is queued from now on.
local function record_progress(queue, queued_at)
  local progress = math.min(tonumber(queued_at), now)
  if progress > get_number(reached, queue) then
    redis.call('HSET', reached, queue, string.format('%.0f', progress))
  end
end

-- Return the state that an evaluation which is not queued may be leased from, or a false value.
local function leasable_state(id)
  local ends, due = redis.call('ZSCORE', leased, id), redis.call('ZSCORE', parked, id)
  if ends and tonumber(ends) <= now then return 'leased' end
  return due and tonumber(due) <= now and 'parked'
end

-- Return the leased job of a text, its new text, and whether it waits for its runs; nil if the text is damaged.
local function leased_job(id, text, token, some_on_hold)
  local job = read_job(id, text)
  if not job then return end
  job.lease = token
  return { job = job, text = cjson.encode(job), waits = some_on_hold and waits_for_runs(job) }
end

-- Lease an evaluation until a time; return the text of its job.
local function lease_from(from, id, new, ends)
  local text = new.text
  if from == 'leased' then
    local job = cjson.decode(text)
    job.lost = job.lost + 1
    text = cjson.encode(job)
  else
    batch_write('ZREM', state_key(new.job, from), id)
  end
  batch_write('HSET', entries, id, text)
  batch_write('ZADD', leased, ends, id)
  count(new.job.runs, from, -1)
  count(new.job.runs, 'leased', 1)
  return text
end

-- lease (ms), token, id... -> for each: the job, or '' if it cannot be leased
function verbs.lease(lease, token, ...)
  local ids, answer, done, by_text, queued_at, scores = { ... }, {}, {}, {}, {}, {}
  local texts, ends = read_wanted(ids), now + tonumber(lease)
  local some_on_hold = redis.call('EXISTS', refused) == 1
  for i, id in ipairs(ids) do
    local text = not done[id] and texts[i]
    -- Evaluations of one order have the same text, and so the same leased job.
    local new = text and (by_text[text] or leased_job(id, text, token, some_on_hold))
    if new then by_text[text] = new end
    local queue = new and queue_of(new.job)
    if queue and not scores[queue] then scores[queue] = read_all('ZMSCORE', queued[queue], ids) end
    local score = queue and scores[queue][i]
    local from = score and 'queued' or new and leasable_state(id)
    if score then queued_at[queue] = score end
    answer[i] = ''
    if from then
      done[id] = true
      if new.waits then hold_for_runs(id, text, from) else answer[i] = lease_from(from, id, new, ends) end
    end
  end
  for queue, score in pairs(queued_at) do record_progress(queue, score) end
  return answer
end

-- lease (ms), then (id, token)... -> the IDs whose lease was lost
function verbs.extend(lease, ...)
  local args, lost = { ... }, {}
  for i = 1, #args, 2 do
    if owned_job(args[i], args[i + 1]) then
      redis.call('ZADD', leased, 'XX', now + tonumber(lease), args[i])
    else
      lost[#lost + 1] = args[i]
    end
  end
  return lost
end

-- Return the milliseconds since a job was accepted, first ordered live, or redriven, at least 1; 0 if the lease was lost.
local function complete_one(token, id, ending, job)
  if job.lease ~= token then return 0 end
  -- The answer of RiskOS follows only if it differs from the manifest: unchanged:archived:not_found.
  local outcome, answer = string.match(ending, '^([%w_]+:[%w_]+):([%w_]+)$')
  outcome = outcome or ending
  count(job.runs, outcome, 1)
  record_answer(id, job, outcome, answer)
  if job.again then
    finish_job(id, job, 'leased')
  else
    count(job.runs, 'leased', -1)
    batch_write('ZREM', leased, id)
    batch_write('HDEL', entries, id)
  end
  return math.max(1, now - (job.asked or job.accepted))
end

-- (token, id, ending)... -> for each: the answer of `complete_one`, or -1 if its entry is damaged
function verbs.complete(...)
  local args, ids, answer, completed, by_text = { ... }, {}, {}, {}, {}
  for i = 2, #args, 3 do ids[#ids + 1] = args[i] end
  local texts = read_all('HMGET', entries, ids)
  for i, id in ipairs(ids) do
    local text, age = not completed[id] and texts[i], 0
    local job = text and (by_text[text] or read_job(id, text))
    if job then by_text[text], age = job, complete_one(args[3 * i - 2], id, args[3 * i], job) end
    completed[id] = age > 0
    answer[i] = text and not job and -1 or age
  end
  write_answers()
  return answer
end

-- token, id, wait (ms), attempts, cause, why, status, request_id -> 1, or 0 if the lease was lost
function verbs.retry_later(token, id, wait, attempts, cause, why, status)
  local job = owned_job(id, token)
  if not job then return 0 end
  job.lease, job.attempts, job.cause, job.why = nil, tonumber(attempts), cause, why
  job.suspect, job.first, job.forbidden = true, job.first or now, job.forbidden or cause == 'forbidden' and now or nil
  put_back(id, job, 'parked', now + tonumber(wait))
  return 1
end

-- token, id, cause, suspect (0|1) -> 1, or 0 if the lease was lost
function verbs.await_hold(token, id, cause, suspect)
  local job = owned_job(id, token)
  if not job then return 0 end
  job.lease, job.cause, job.why = nil, cause, nil
  if suspect == '1' then job.suspect, job.first, job.excused = true, job.first or now, now end
  -- An account that is only busy needs no probe, so a suspect need not wait behind the others.
  local last = job.suspect and cause ~= 'account_busy'
  put_back(id, job, 'held', last and now + LAST or now)
  return 1
end

-- id... -> nothing. Their attempts failed in an outage: parked ones get one attempt back, and wait until it ends.
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

-- token, id, excused (0|1) -> 1, or 0 if the lease was lost
function verbs.release(token, id, excused)
  local job = owned_job(id, token)
  if not job then return 0 end
  job.lease, job.excused = nil, excused == '1' and now or job.excused
  put_back(id, job, 'queued', now)
  return 1
end

-- token, id, outcome, attempts, cause, why, status, request_id -> 1, or 0 if the lease was lost
function verbs.dead_letter(token, id, outcome, attempts, cause, why, status, request_id)
  local job = owned_job(id, token)
  if not job then return 0 end
  count(job.runs, outcome, 1)
  -- An evaluation that was ordered again during its attempt starts again instead.
  if not job.again then
    local letter = copy_without(job, 'lease', 'lost', 'suspect', 'excused', 'forbidden', 'asked', 'cancelled', 'trace')
    letter.cause, letter.why, letter.status = cause, why, tonumber(status)
    letter.request_id = request_id ~= '' and request_id or nil
    letter.attempts, letter.first, letter.last = tonumber(attempts), job.first or now, now
    redis.call('HSET', dead, id, cjson.encode(letter))
    redis.call('ZADD', letters_key(cause), now, id)
    redis.call('ZINCRBY', causes, 1, cause)
  end
  finish_job(id, job, 'leased')
  return 1
end
