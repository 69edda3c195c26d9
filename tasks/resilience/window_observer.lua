-- Estimate how much of an account's rate and day others use, from the requests that RiskOS's answers say are left.
--
-- An answer says how many requests its window has counted. Those beyond our own permits in that window come from the
-- neighbour, which stands for all other clients of the key. RiskOS's window may slide, or begin at fixed times of its
-- clock: see find_boundary.
--
-- KEYS[1]  window  HASH    length: of the window (ms); 0, 1, ...: "bin:permits:latest", a ring of short bins of our
--                          permits by the time they are due, the latest in microseconds (see rate_limiter.lua);
--                          w0, w1, ...: "window:sum:weight", a ring of the observations in each window; earliest,
--                          latest (ms), agreed: between which times a fixed window began, and how many observations
--                          agree; waited (ms): until then, we wait for the end of a full window
-- KEYS[2]  pace    HASH    asked, granted, granted_until, limit, length, neighbour: see rate_limiter.lua
-- KEYS[3]  bucket  STRING  see rate_limiter.lua; KEYS[6] is that of the backfill
-- KEYS[4]  quota   HASH    see rate_limiter.lua
-- KEYS[5]  unused          a key that never exists (see holds.lua)
--
-- ARGV: length of the window (ms, 0 for unknown), its limit, requests per window left to others, limit of the day, rate
--       of the settings, then for each answer: ms since its request was sent, requests that its window has counted (one
--       more than the limit if it refused this one), requests left of the day (-1 for unknown each)
-- Answer: { ms for which no request should be sent }

redis.call('DEL', KEYS[5])

local BINS, RING, SMOOTHED = 20, 400, 10
-- Permits are due within ten seconds, or a little later at less than one request in five seconds.
local CLOCK_STEP, FURTHEST = 5 * 1000, 60 * 1000
-- The granted rate is used for ten minutes.
local VALID = 10 * 60 * 1000
local LEAST_RATE = 0.2
-- Our own count may be wrong by these parts of the limit, on average and for one answer, because requests are sent a
-- little later than they are due.
local NOISE, SURPRISE = 0.02, 0.1
local ROUNDING = 0.3
-- A window counts as fixed once this many observations agree.
local AGREED = 2
-- The requests left of a day rise only if all answers of a minute say so. If none are left, one request checks the day
-- again after LOOK.
local DOUBTFUL, LOOK = 60 * 1000, 15 * 60 * 1000

local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local length, limit, leave, day_limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local noise, surprise = math.max(ROUNDING, limit * NOISE), math.max(1, limit * SURPRISE)
local state, permits, latest_due, width = { agreed = 0 }, {}, {}, nil

-- A damaged value in Redis counts as missing.
local function to_number(text)
  local number = tonumber(text or nil)
  return number and number > -2 ^ 63 and number < 2 ^ 63 and number or nil
end

local function to_positive(text)
  local number = to_number(text)
  return number and number > 0 and number or nil
end

local NUMBERS = { length = true, earliest = true, latest = true, agreed = true, waited = true }

-- Forget stored times that are further ahead than any valid one, because Redis's clock was set back.
local function forget_future()
  local known = length > 0 and length or 1000
  for i = 0, SMOOTHED do
    local number = to_number(string.match(state['w' .. i] or '', '^(.-):'))
    if number and number > now / known + 1 then state['w' .. i] = nil end
  end
  if state.agreed > 0 and state.latest > now + known then state.agreed, state.earliest, state.latest = 0, nil, nil end
  if state.waited and state.waited > now + known + CLOCK_STEP then state.waited = nil end
  for bin, due in pairs(latest_due) do
    if due > now + FURTHEST then permits[bin], latest_due[bin] = nil, nil end
  end
end

local function load_state()
  local known = to_positive(redis.call('HGET', KEYS[1], 'length')) or 1000
  if length > 0 and known ~= length then redis.call('DEL', KEYS[1]) end
  local flat = redis.call('HGETALL', KEYS[1])
  for i = 1, #flat, 2 do
    local bin, count, due = string.match(flat[i + 1], '^(%d+):(%d+):(%d+)$')
    if bin then
      permits[tonumber(bin)], latest_due[tonumber(bin)] = tonumber(count), due / 1000
    elseif NUMBERS[flat[i]] then
      state[flat[i]] = to_number(flat[i + 1])
    elseif string.match(flat[i], '^w%d+$') then
      state[flat[i]] = flat[i + 1]
    end
  end
  if not (state.earliest and state.latest and state.agreed) then state.agreed = 0 end
  forget_future()
  width = (length > 0 and length or known) / BINS
end

-- Return how many of our permits were due between two times; one of them belongs to the observed request.
local function own_between(from, to)
  local first, last, sum = math.floor(from / width), math.floor(to / width), 0
  for bin = first, last do
    local count = permits[bin] or 0
    if bin == last and count > 0 and to < latest_due[bin] then
      count = 1 + (count - 1) * (to / width - bin)
    elseif bin == first then
      count = count * (first + 1 - from / width)
    end
    sum = sum + count
  end
  return math.max(1, sum)
end

-- Find when a fixed window began. After it begins, an answer counts fewer requests than we sent within one length. So
-- the window began after the latest of our permits that it does not count.
local function find_boundary(sent, used)
  local own = own_between(sent - length, sent)
  if own <= used + math.max(surprise, own / 10) then return end
  local bin, counted = math.floor(sent / width), 0
  while true do
    counted = counted + (permits[bin] or 0)
    if counted > used then break end
    bin = bin - 1
  end
  local earliest, latest, agreed = bin * width, sent, state.agreed
  if latest - earliest > length / 2 then return end
  if agreed > 0 then
    local shift = math.floor((sent - state.latest) / length + 0.5) * length
    local from, to = math.max(earliest, state.earliest + shift), math.min(latest, state.latest + shift)
    if from <= to then
      earliest, latest, agreed = from, to, math.min(10, agreed + 1)
    elseif agreed > 1 then
      earliest, latest, agreed = state.earliest, state.latest, agreed - 1
    end
  end
  state.earliest, state.latest, state.agreed = earliest, latest, math.max(1, agreed)
end

-- Return number and beginning of the window that counted a request. A sliding window ends with the request.
local function window_of(sent)
  if state.agreed < AGREED then return math.floor(sent / length), sent - length end
  local phase = (state.earliest + state.latest) / 2 % length
  local number = math.floor((sent - phase) / length)
  return number, number * length + phase
end

-- Return sum and weight of the observations in a window, and whether they are of a later window; nothing if unknown.
local function observed_in(number)
  local known, sum, weight = string.match(state['w' .. number % (SMOOTHED + 1)] or '', '^(.+):(.+):(.+)$')
  known = to_number(known) or 0
  if known >= number and to_number(sum) and to_number(weight) then return tonumber(sum), tonumber(weight), known > number end
end

-- Return how many requests per window others sent in the latest windows, the newest weighted most; nil if unknown.
local function mean_of(latest, windows)
  local sums, weights = 0, 0
  for number = latest - windows + 1, latest do
    local sum, weight, is_later = observed_in(number)
    if sum and not is_later then
      local share = (number - latest + windows) ^ 2
      sums, weights = sums + sum * share, weights + weight * share
    end
  end
  return weights > 0 and sums / weights or nil
end

local function forget_before(number)
  for i = 0, SMOOTHED do
    local known = to_number(string.match(state['w' .. i] or '', '^(.-):'))
    if known and known < number then state['w' .. i] = nil end
  end
end

-- Return how many requests per window the neighbour sends: smoothed, unless the latest two windows show clearly more.
local function estimate()
  local latest = window_of(now)
  local smoothed = mean_of(latest, SMOOTHED)
  if not smoothed then return to_number(redis.call('HGET', KEYS[2], 'neighbour')) or 0 end
  local recent = mean_of(latest, 2) or smoothed
  if recent > smoothed + math.max(leave, noise) then
    smoothed = recent
    forget_before(latest - 1)
  end
  -- A window holds whole requests.
  return smoothed < noise and 0 or math.min(limit, math.ceil(smoothed - ROUNDING))
end

-- Forget the permit of a refused request, because RiskOS does not count the request either.
local function forget_permit(sent)
  local latest = math.floor(sent / width)
  for bin = latest, latest - BINS, -1 do
    if (permits[bin] or 0) > 0 then
      permits[bin] = permits[bin] - 1
      local value = string.format('%.0f:%.0f:%.0f', bin, permits[bin], latest_due[bin] * 1000)
      redis.call('HSET', KEYS[1], bin % RING, value)
      return
    end
  end
end

-- Evaluate one answer; return the ms to wait if its window is full.
local function observe(sent, used, neighbour)
  if now - sent > length * SMOOTHED then return 0 end
  local is_refused = used > limit
  if is_refused then forget_permit(sent) end
  used = math.min(used, limit)
  find_boundary(sent, used)
  local number, began = window_of(sent)
  local others, part = used - own_between(began, sent), math.min(1, math.max(0.01, (sent - began) / length))
  -- A full window may have refused requests of others.
  local is_shared = used == limit and others >= surprise
  local needs_wait = is_shared and others >= neighbour + surprise
  if is_shared then others = others + 1.5 end
  -- Observations before a wait say little, because others may have been refused. Those after it are exact.
  if needs_wait or sent >= (state.waited or math.huge) then
    forget_before(math.huge)
    state.waited = needs_wait and (state.agreed >= AGREED and began or sent) + length or nil
  end
  local sum, weight, is_later = observed_in(number)
  if not is_later then
    -- Late answers say most about a fixed window.
    state['w' .. number % (SMOOTHED + 1)] = string.format('%.0f:%.4f:%.4f', number,
      (sum or 0) + others * part ^ 2, (weight or 0) + part ^ 3)
  end
  if needs_wait then return state.waited - now end
  return is_refused and length / 5 or 0
end

-- Move the next permit to one spacing after the last one, at the new rate.
local function move_next_permit(old, new)
  for _, bucket in ipairs({ KEYS[3], KEYS[6] }) do
    local arrival = to_number(redis.call('GET', bucket)) or 0
    if arrival > now * 1000 then
      redis.call('SET', bucket, string.format('%.0f', arrival + (1 / new - 1 / old) * 1000000), 'PX', 120000)
    end
  end
end

local function observe_rate()
  local neighbour, wait = to_number(redis.call('HGET', KEYS[2], 'neighbour')) or 0, 0
  for i = 6, #ARGV, 3 do
    local used = tonumber(ARGV[i + 1])
    if used >= 0 then wait = math.max(wait, observe(now - tonumber(ARGV[i]), used, neighbour)) end
  end
  neighbour = estimate()
  local granted = math.max(LEAST_RATE, (limit - neighbour - leave) * 1000 / length)
  local asked, before = unpack(redis.call('HMGET', KEYS[2], 'asked', 'granted'))
  local configured = to_positive(asked) or tonumber(ARGV[5])
  local old, new = math.min(configured, to_positive(before) or configured), math.min(configured, granted)
  if old ~= new then move_next_permit(old, new) end
  redis.call('HSET', KEYS[2], 'granted', granted, 'granted_until', string.format('%.0f', now + VALID),
    'limit', limit, 'length', length, 'neighbour', neighbour)
  return wait
end

local function save_state()
  for i = 0, SMOOTHED do
    if not state['w' .. i] then redis.call('HDEL', KEYS[1], 'w' .. i) end
  end
  if not state.waited then redis.call('HDEL', KEYS[1], 'waited') end
  local flat = { 'length', length }
  for name, value in pairs(state) do
    flat[#flat + 1], flat[#flat + 2] = name, value
  end
  redis.call('HSET', KEYS[1], unpack(flat))
end

-- Postpone the next permit until after a wait.
local function postpone(wait)
  local arrival = to_number(redis.call('GET', KEYS[3])) or 0
  local free = math.max(arrival, (now + wait) * 1000)
  redis.call('SET', KEYS[3], string.format('%.0f', free), 'PX', math.ceil(free / 1000 - now) + 60000)
end

-- The requests left of the day are a hint: answers overtake each other, and RiskOS's own count goes up and down. The
-- lowest value counts until every answer of a minute has given a higher one.
local function observe_day(sent, remaining)
  local left, low_at = unpack(redis.call('HMGET', KEYS[4], 'left', 'low_at'))
  left, low_at = to_number(left) or remaining, to_number(low_at) or 0
  local last = math.floor(sent / width)
  for bin, count in pairs(permits) do
    if bin > last then remaining = remaining - count end
  end
  if remaining > left then
    if math.abs(now - low_at) <= DOUBTFUL then return end
    if day_limit > 0 and remaining - left > day_limit / 10 then
      redis.call('HSET', KEYS[4], 'since', string.format('%.0f', math.floor(now)), 'used', 0, 'learnt', 1)
    end
  end
  redis.call('HSET', KEYS[4], 'left', remaining, 'low_at', string.format('%.0f', math.floor(now)))
end

load_state()
local wait = 0
if length > 0 then
  wait = observe_rate()
  save_state()
  if wait > 0 then postpone(wait) end
end
local has_day = day_limit >= 0
for i = 6, #ARGV, 3 do
  local remaining = tonumber(ARGV[i + 2])
  if remaining >= 0 then
    observe_day(now - tonumber(ARGV[i]), remaining)
    has_day = true
  end
end
if has_day then
  local now_ms = math.floor(now)
  redis.call('HSET', KEYS[4], 'seen_at', string.format('%.0f', now_ms), 'look_at', string.format('%.0f', now_ms + LOOK))
  if day_limit >= 0 then redis.call('HSET', KEYS[4], 'limit', day_limit) end
end
return { math.ceil(wait) }
