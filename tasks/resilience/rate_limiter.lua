-- Grant permits within the rate and the quota of an account, and adapt the rate to RiskOS's answers.
--
-- Generic cell rate algorithm with reservation: a granted permit belongs to the caller, which waits until it is due and
-- does not poll. All times are on Redis's clock, so the clocks of the workers do not matter.
--
-- Redis's clock may be set back. A stored time that is further ahead than any valid one then counts as the present.
--
-- KEYS[1]  hold             HASH    reason, note, since, until, length, pause (ms): the account is on hold (see holds.lua)
-- KEYS[2]  hold of queue    HASH    the same for the queue of the caller: the account's backfill, or the account again
-- KEYS[3]  quota            HASH    since (ms), used: requests of the current day; learnt: RiskOS said when it ends;
--                                   limit: requests of RiskOS's day; left: how many of them its headers left, less
--                                   our permits since; low_at (ms): when the headers last left no more than that;
--                                   seen_at (ms): when they last said anything; look_at (ms): when a request may find
--                                   out whether a spent day is over
-- KEYS[4]  bucket           STRING  theoretical arrival time of the account's next request, in microseconds
-- KEYS[5]  rate             HASH    asked: rate set manually; granted, granted_until (ms): rate that RiskOS's headers
--                                   grant; slowed, slowed_at (ms): the rate after its last reduction, and when that
--                                   was; limited_at (ms): the last 429; row: how many in a row without a success;
--                                   lately: how many recently;
--                                   minute, sent, sent_before: permits granted in that minute and in the one before;
--                                   limit, length (ms), neighbour: requests of a window that RiskOS grants to the key,
--                                   its length, and how many others send in one
-- KEYS[6]  unused           a key that never exists (see holds.lua)
-- KEYS[7]  backfill bucket  STRING  as KEYS[4], for the share of the rate that the backfill may use
-- KEYS[8]  window           HASH    our permits by the time they are due (see window_observer.lua)
-- KEYS[9]  refused runs     ZSET    runs that are on hold (see ledger_refusals.lua)
--
-- ARGV: verb, rate (requests per second, as in the settings), then the arguments of the verb
-- Answers of acquire and acquire_backfill:
--   { 'granted', microseconds, is_probe }  the permit is reserved and due then; 1 if its request is the probe
--   { 'wait', microseconds, verb }         none of the account's permits is reserved yet; call that verb then
--   { 'held', milliseconds, reason }       the account or its backfill is on hold
--   { 'run_held' }                         the run is on hold

redis.call('DEL', KEYS[6])

-- Permits are spaced for 97 % of the rate, so a request may be 30 ms late without exceeding the rate in any second. Two
-- workers at 50/s on a busy machine used 93 to 96 % of it, with at most 0.07 % of 429s. With 0.98 they used 84 and 94 %.
local RATE_MARGIN = 0.97
local DAY = 24 * 60 * 60 * 1000
-- A reduced rate recovers by 1 % of the full rate per second, and is never below 5 % of it.
local RECOVERY, FACTOR, LEAST = 0.01 / 1000, 0.8, 0.05
local SUSTAINED, LATELY = 3, 30 * 1000
-- RiskOS asks for a wait of this length only if the quota of the day is spent.
local LONG = 120 * 1000
local IN_A_ROW = 6
-- Permits further away than this are not reserved.
local HORIZON = 10 * 1000000
-- As long as RiskOS grants less than is configured, permits are reserved for a second only: more may be granted soon.
local NEAR = 1000000
-- If a backfill permit is due within this time, no second call is needed, because the round trip takes as long.
local SOON = 5000
local PROBE_LEASE = 60 * 1000
-- Clocks may differ by this much, for example after a failover, even if none was set.
local CLOCK_STEP = 5 * 1000
-- The request that finds out whether RiskOS's day is over may take this long; then another one is sent.
local DAY_PROBE_LEASE = 10 * 1000
-- window_observer.lua lets a request check a spent day after a quarter of an hour.
local LONGEST_DAY_PROBE = 16 * 60 * 1000
-- Bins per window, and bins that are kept: for a window of a second, those up to the horizon and as many in the past.
local BINS, RING = 20, 400
local CLOCKS_APART = 20 * 1000

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local now_ms = math.floor(now / 1000)
local verb, rate = ARGV[1], tonumber(ARGV[2])

-- A damaged value in Redis counts as missing.
local function to_number(text)
  local number = tonumber(text or nil)
  return number and number > -2 ^ 63 and number < 2 ^ 63 and number or nil
end

local function to_positive(text)
  local number = to_number(text)
  return number and number > 0 and number or nil
end

-- Add to a counter; a damaged one begins again.
local function increment(key, field, by)
  local value = redis.pcall('HINCRBY', key, field, by)
  if type(value) ~= 'number' then redis.call('HSET', key, field, math.max(0, by)) end
end

-- Return the configured rate, the effective rate, and the rate that RiskOS grants if it is below the configured one.
local function rates()
  local asked, granted, granted_until, slowed, slowed_at = unpack(
    redis.call('HMGET', KEYS[5], 'asked', 'granted', 'granted_until', 'slowed', 'slowed_at'))
  local configured = to_positive(asked) or rate
  local full = configured
  if to_positive(granted) and (to_number(granted_until) or 0) > now_ms then full = math.min(full, to_number(granted)) end
  local effective = full
  if to_positive(slowed) and to_number(slowed_at) then
    if to_number(slowed_at) > now_ms then
      slowed_at = now_ms
      redis.call('HSET', KEYS[5], 'slowed_at', now_ms)
    end
    local recovered = full * RECOVERY * (now_ms - to_number(slowed_at))
    effective = math.min(full, math.max(full * LEAST, to_number(slowed)) + recovered)
  end
  return configured, effective, full < configured and full or nil
end

-- Return when the current day of the quota began and how much of it is used; begin a new one if it is over.
local function quota_day()
  local since, used, learnt = unpack(redis.call('HMGET', KEYS[3], 'since', 'used', 'learnt'))
  since, used = to_number(since) or 0, to_number(used) or 0
  if now_ms - since >= DAY then
    since, used = learnt and since + DAY * math.floor((now_ms - since) / DAY) or now_ms, 0
    redis.call('HSET', KEYS[3], 'since', string.format('%.0f', since), 'used', 0)
  end
  return since, used
end

-- Return the answer if there is a hold; otherwise nil, and whether the request would be the probe of a hold.
local function check_holds()
  local is_probe, run = false, ARGV[8]
  if run ~= '' and redis.call('ZSCORE', KEYS[9], run) then return { 'run_held' } end
  for i = 1, 2 do
    local until_, reason, pause, length = unpack(redis.call('HMGET', KEYS[i], 'until', 'reason', 'pause', 'length'))
    if to_number(until_) then
      local left = math.ceil(to_number(until_) - now_ms)
      if to_number(length) and left > to_number(length) + CLOCK_STEP then
        left = 0
        if pause then redis.call('HSET', KEYS[i], 'until', now_ms) else redis.call('DEL', KEYS[i]) end
      end
      if left > 0 then return { 'held', left, reason or 'unknown' } end
      -- A hold without a pause has expired, even if Redis has not removed it yet.
      if i == 1 and pause then is_probe = true end
    end
  end
  return nil, is_probe
end

-- Return the requests that the day allows, nil if unlimited, how many of them RiskOS reports as left, nil if unknown, and
-- when a request may find out whether a spent day is over.
local function day_of_headers(quota, leave)
  local limit, left, seen_at, look_at = unpack(redis.call('HMGET', KEYS[3], 'limit', 'left', 'seen_at', 'look_at'))
  quota = quota > 0 and quota or nil
  if not to_number(seen_at) or now_ms - to_number(seen_at) >= DAY then return quota end
  if to_number(limit) then quota = math.min(quota or math.huge, math.max(0, to_number(limit) - leave)) end
  look_at = to_number(look_at) or 0
  return quota, to_number(left), look_at - now_ms <= LONGEST_DAY_PROBE and look_at or 0
end

-- Place a hold on the queue; if it has one that waits for its probe, only extend that one.
local function hold_for_quota(until_, note)
  local has_hold = redis.call('EXISTS', KEYS[2]) == 1
  redis.call('HSET', KEYS[2], 'until', string.format('%.0f', until_), 'length', string.format('%.0f', until_ - now_ms))
  if not has_hold then
    redis.call('HSET', KEYS[2], 'reason', 'quota', 'note', note, 'since', now_ms)
    redis.call('PEXPIRE', KEYS[2], until_ - now_ms)
  end
  return { 'held', until_ - now_ms, 'quota' }
end

-- Return the part of a quota that a queue may use.
local function part_of(quota, reserve) return quota - math.floor(quota * reserve + 0.5) end

-- Return the 'held' answer if the queue has spent its part of the quota, by our count or by what RiskOS reports as left;
-- otherwise nil and the first two results of day_of_headers.
local function check_quota(quota, reserve, leave)
  local allowed, left, look_at = day_of_headers(quota, leave)
  if not allowed and not left then return nil end
  local since, used = quota_day()
  if quota > 0 and used >= part_of(quota, reserve) then
    return hold_for_quota(since + DAY, part_of(quota, reserve) .. ' of ' .. quota .. ' requests are spent')
  end
  local reserved = (allowed or 0) - part_of(allowed or 0, reserve)
  local is_spent = allowed and used >= allowed - reserved or left and left <= leave + reserved
  if is_spent and now_ms < look_at then
    return hold_for_quota(look_at, "RiskOS's day is spent: " .. math.max(0, left or 0) .. ' requests are left')
  end
  if is_spent then redis.call('HSET', KEYS[3], 'look_at', now_ms + DAY_PROBE_LEASE) end
  return nil, allowed, left
end

-- Return the microseconds by which window_observer.lua may have postponed the next permit.
local function longest_postponed()
  local length, waited = unpack(redis.call('HMGET', KEYS[8], 'length', 'waited'))
  length = to_positive(length) or 0
  local left = (to_number(waited) or 0) - now_ms
  return (left > 0 and left <= length and length or length / 5) * 1000
end

-- Reserve the next permit of a bucket. Return the microseconds until it is due; or nil if that is beyond the horizon,
-- and the microseconds until it is not.
local function reserve_permit(bucket, share, burst)
  local _, effective, granted = rates()
  local spacing = 1000000 / (effective * share * RATE_MARGIN)
  local arrival = to_number(redis.call('GET', bucket)) or 0
  local longest = HORIZON + (burst + 1) * spacing + CLOCK_STEP * 1000
  if arrival - now > longest and arrival - now > longest + longest_postponed() then arrival = now end
  local due_in = math.max(0, math.ceil(arrival - (burst - 1) * spacing - now))
  if granted then
    if due_in > NEAR then return nil, math.min(due_in - NEAR, NEAR) end
  elseif due_in > HORIZON then
    return nil, due_in - HORIZON
  end
  local next_arrival = math.max(arrival, now) + spacing
  local expires = math.ceil((next_arrival - now) / 1000) + 60000
  redis.call('SET', bucket, string.format('%.0f', next_arrival), 'PX', expires)
  return due_in
end

local function count_request()
  local minute = math.floor(now_ms / 60000)
  local last, sent = unpack(redis.call('HMGET', KEYS[5], 'minute', 'sent'))
  last = to_number(last)
  if last ~= minute then
    redis.call('HSET', KEYS[5], 'minute', minute, 'sent', 0, 'sent_before', last == minute - 1 and to_number(sent) or 0)
  end
  increment(KEYS[5], 'sent', 1)
end

-- Return permits per second over the last minute; of the calendar minute before, a proportional part counts.
local function observed_rate()
  local minute, sent, before = unpack(redis.call('HMGET', KEYS[5], 'minute', 'sent', 'sent_before'))
  local since = now_ms / 60000 - (to_number(minute) or 0)
  sent, before = to_number(sent) or 0, to_number(before) or 0
  if since < 1 then return (sent + before * (1 - since)) / 60 end
  return since < 2 and sent * (2 - since) / 60 or 0
end

-- Return the bin of a moment (microseconds), and how many of our permits are due in it.
local function permits_at(due)
  local width = (to_positive(redis.call('HGET', KEYS[8], 'length')) or 1000) / BINS
  local bin = math.floor(due / 1000 / width)
  local known, count = string.match(redis.call('HGET', KEYS[8], bin % RING) or '', '^(%d+):(%d+)')
  return bin, tonumber(known) == bin and tonumber(count) or 0
end

local function set_permits(bin, count, due)
  redis.call('HSET', KEYS[8], bin % RING, string.format('%.0f:%.0f:%.0f', bin, count, due))
  redis.call('PEXPIRE', KEYS[8], DAY)
end

-- Reserve one of the account's permits.
local function grant(is_probe, burst, allowed, left)
  local due_in, retry_in = reserve_permit(KEYS[4], 1, burst)
  if not due_in then return { 'wait', retry_in, 'acquire' } end
  count_request()
  local bin, count = permits_at(now + due_in)
  set_permits(bin, count + 1, now + due_in)
  if allowed then increment(KEYS[3], 'used', 1) end
  if left then increment(KEYS[3], 'left', -1) end
  if is_probe then
    local length = math.ceil(due_in / 1000) + PROBE_LEASE
    redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now_ms + length), 'length', length)
  end
  return { 'granted', due_in, is_probe and 1 or 0 }
end

local verbs = {}

-- burst, quota (requests per day, 0 for unlimited), reserve (part of it that the caller's queue leaves to the other),
-- leave (requests of RiskOS's day left to other users of the key), share (of the rate, for the backfill), run (the only
-- run that wants the evaluation, or '')
function verbs.acquire(burst, quota, reserve, leave)
  local held, is_probe = check_holds()
  if held then return held end
  local spent, allowed, left = check_quota(quota, reserve, leave)
  return spent or grant(is_probe, burst, allowed, left)
end

-- the same arguments; reserve a permit of the backfill's bucket, and one of the account's if the first is due now or
-- soon. Otherwise none of the account's permits is reserved yet, because live requests would wait behind it.
function verbs.acquire_backfill(burst, quota, reserve, leave, share)
  local held, is_probe = check_holds()
  if held then return held end
  local spent, allowed, left = check_quota(quota, reserve, leave)
  if spent then return spent end
  local due_in, retry_in = reserve_permit(KEYS[7], share, burst)
  if not due_in then return { 'wait', retry_in, 'acquire_backfill' } end
  if due_in > SOON then return { 'wait', due_in, 'acquire' } end
  return grant(is_probe, burst, allowed, left)
end

-- microseconds since the permit was due; its request is not sent
function verbs.release(age)
  -- The caller's clock differs a little.
  for _, apart in ipairs({ 0, -CLOCKS_APART, CLOCKS_APART }) do
    local bin, count = permits_at(now - age + apart)
    if count > 0 then
      set_permits(bin, count - 1, now - age + apart)
      break
    end
  end
  local used, left = unpack(redis.call('HMGET', KEYS[3], 'used', 'left'))
  if (to_number(used) or 0) > 0 then increment(KEYS[3], 'used', -1) end
  if left then increment(KEYS[3], 'left', 1) end
  return { 'ok' }
end

-- wait (ms that RiskOS asked for, -1 for none), 1 if it grants nothing, successes since the last call,
-- window_wait (ms until its window grants requests again according to its headers, -1 for unknown)
-- -> { reason of the hold to place, its milliseconds or 0 if only a probe can end it }
function verbs.rate_limited(wait, is_blocked, successes, window_wait)
  local limited_at, row, lately = unpack(redis.call('HMGET', KEYS[5], 'limited_at', 'row', 'lately'))
  limited_at, row, lately = to_number(limited_at) or 0, to_number(row) or 0, to_number(lately) or 0
  if successes > 0 then
    row = 0
    redis.call('HSET', KEYS[5], 'row', row)
  end
  if is_blocked == 1 then return { 'not_activated', 0 } end
  if wait >= LONG then
    verbs.quota_spent(wait)
    return { 'quota', wait }
  end
  -- Requests in flight at the same time are refused together, so they count as one 429.
  local least = wait < 0 and window_wait >= 0 and math.max(window_wait, 1) or 1000
  if math.abs(now_ms - limited_at) < 1000 then return { '429', math.max(wait, least) } end
  row, lately = row + 1, math.abs(now_ms - limited_at) > LATELY and 1 or lately + 1
  redis.call('HSET', KEYS[5], 'limited_at', now_ms, 'row', row, 'lately', lately)
  -- A rate that follows the headers needs no reduction.
  if lately >= SUSTAINED and window_wait < 0 then
    local configured, effective = rates()
    redis.call('HSET', KEYS[5], 'slowed', math.max(configured * LEAST, effective * FACTOR), 'slowed_at', now_ms)
  end
  if row >= IN_A_ROW then return { '429', 0 } end
  return { '429', wait >= 0 and math.max(wait, 1) or row == 1 and least or 1000 * 2 ^ (row - 1) }
end

-- wait (ms): the quota is spent, and its next day begins then
function verbs.quota_spent(wait)
  redis.call('HSET', KEYS[3], 'since', string.format('%.0f', now_ms + wait - DAY), 'learnt', 1)
  return { 'ok' }
end

-- RiskOS answered successfully: the next 429 is the first of a row.
function verbs.answered()
  if redis.call('HEXISTS', KEYS[5], 'row') == 1 then redis.call('HSET', KEYS[5], 'row', 0) end
  return { 'ok' }
end

-- The quota has just been renewed: its day begins now.
function verbs.new_day()
  redis.call('HSET', KEYS[3], 'since', now_ms, 'used', 1, 'learnt', 1)
  return { 'ok' }
end

-- manual rate, 0 for the rate of the settings; ends a reduction of the rate
function verbs.set_rate(manual)
  redis.call('HDEL', KEYS[5], 'asked', 'slowed', 'slowed_at')
  if manual > 0 then redis.call('HSET', KEYS[5], 'asked', manual) end
  return { 'ok' }
end

-- -> { configured rate, effective rate, 1 if it was set manually, requests of the current day, observed rate, requests
--      per second that RiskOS grants to the key, those of others, requests of RiskOS's day }; '' for unknown
function verbs.status()
  local configured, effective = rates()
  local since, used = unpack(redis.call('HMGET', KEYS[3], 'since', 'used'))
  local is_today = to_number(since) and now_ms - to_number(since) < DAY
  local used_today = string.format('%.0f', is_today and to_number(used) or 0)
  local is_manual = to_positive(redis.call('HGET', KEYS[5], 'asked')) and 1 or 0
  local limit, length, neighbour, granted_until = unpack(
    redis.call('HMGET', KEYS[5], 'limit', 'length', 'neighbour', 'granted_until'))
  local granted, others = '', ''
  limit, length, neighbour = to_number(limit), to_positive(length), to_number(neighbour)
  if limit and length and neighbour and (to_number(granted_until) or 0) > now_ms then
    granted, others = tostring(limit * 1000 / length), tostring(neighbour * 1000 / length)
  end
  local seen_at = redis.call('HGET', KEYS[3], 'seen_at')
  local of_day = to_number(seen_at) and now_ms - to_number(seen_at) < DAY and redis.call('HGET', KEYS[3], 'limit')
  of_day = to_number(of_day) and string.format('%.0f', of_day) or ''
  return { tostring(configured), tostring(effective), is_manual, used_today, tostring(observed_rate()), granted, others,
    of_day }
end

local arguments = {}
for i = 3, #ARGV do arguments[i - 2] = tonumber(ARGV[i]) end
return verbs[verb](unpack(arguments))
