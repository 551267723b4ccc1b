-- Counts Weir's rate limits, for several nodes. limits/memory.rs does the same for one node; a property
-- test checks that both give the same answers. Numbers in Lua are doubles: costs in nanoseconds and the
-- clock in microseconds are integers below 2^53.
--
-- KEYS: two per subject, its levels (a hash) and its open requests (a sorted set by expiry).
-- ARGV: the operation; the time in microseconds, empty for the store's own clock; then
--   request  slot, lease in microseconds; per subject: cost of a request, limit of concurrent requests
--   tokens   -, -; per subject: cost of a request, cost of the tokens
--   end      slot, time of the reservation of tokens; per subject: cost to take, to give back, of the reservation
--   renew    -, lease in microseconds; per subject: slot
-- An empty argument is an absent limit.
-- Reply to `request` and `tokens`: the limit that refuses (0 none, 1 requests, 2 tokens, 3 concurrency), the
-- number of its subject, the wait in nanoseconds, the time; per subject the levels of requests and tokens.

local MINUTE = 60000000000
local LEVEL_MAX = 8640000000000000
local CONCURRENT_RETRY = 1000000000
-- The keys of levels and slots expire this long after their contents have, in milliseconds.
local SLACK = 60000

local operation = ARGV[1]
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function text(number)
  return string.format('%.0f', number)
end

local function passed(since)
  return math.max(0, now - since) * 1000
end

local function load(key)
  local saved = redis.call('HMGET', key, 'at', 'requests', 'tokens')
  local at = tonumber(saved[1]) or now
  -- If the clock has gone back, so does the stored time: callers don't have to wait until the clock has caught up.
  if at > now then
    redis.call('HSET', key, 'at', text(now))
  end
  local drained = passed(at)
  return {
    requests = math.max(0, (tonumber(saved[2]) or 0) - drained),
    tokens = math.max(0, (tonumber(saved[3]) or 0) - drained),
  }
end

local function save(key, levels)
  redis.call('HSET', key, 'at', text(now), 'requests', text(levels.requests), 'tokens', text(levels.tokens))
  local milliseconds = math.ceil(math.max(levels.requests, levels.tokens) / 1000000)
  redis.call('PEXPIRE', key, text(milliseconds + SLACK))
end

local function wait(level, cost)
  return math.max(0, level + math.min(cost, MINUTE) - MINUTE)
end

local function take(level, cost)
  return math.min(level + cost, LEVEL_MAX)
end

local function open(key)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now))
  return redis.call('ZCARD', key)
end

local function enter(key, seat, lease)
  redis.call('ZADD', key, text(now + lease), seat)
  redis.call('PEXPIRE', key, text(math.ceil(lease / 1000) + SLACK))
end

-- The limit with the longest wait among all that refuse.
local refused, by, longest, next_request = 0, 0, 0, 0
local function note(which, subject, time)
  if time > longest then
    refused, by, longest = which, subject, time
  end
end

local subjects = #KEYS / 2
local levels = {}

local function answer()
  local reply = { refused, by, math.max(longest, refused > 0 and next_request or 0), now }
  for i = 1, subjects do
    reply[#reply + 1] = levels[i].requests
    reply[#reply + 1] = levels[i].tokens
  end
  return reply
end

if operation == 'request' then
  local seat, lease = ARGV[3], tonumber(ARGV[4])
  for i = 1, subjects do
    local cost, most = tonumber(ARGV[3 + 2 * i]), tonumber(ARGV[4 + 2 * i])
    levels[i] = load(KEYS[2 * i - 1])
    if cost then
      note(1, i, wait(levels[i].requests, cost))
    end
    if most and open(KEYS[2 * i]) >= most then
      note(3, i, CONCURRENT_RETRY)
    end
  end
  if refused == 0 then
    for i = 1, subjects do
      local cost, most = tonumber(ARGV[3 + 2 * i]), tonumber(ARGV[4 + 2 * i])
      if cost then
        levels[i].requests = take(levels[i].requests, cost)
        save(KEYS[2 * i - 1], levels[i])
      end
      if most then
        enter(KEYS[2 * i], seat, lease)
      end
    end
  end
  return answer()
end

if operation == 'tokens' then
  for i = 1, subjects do
    local request, cost = tonumber(ARGV[3 + 2 * i]), tonumber(ARGV[4 + 2 * i])
    levels[i] = load(KEYS[2 * i - 1])
    if cost then
      note(2, i, wait(levels[i].tokens, cost))
    end
    -- A request that is refused for its tokens was counted, and its retry needs one more.
    if request then
      next_request = math.max(next_request, wait(levels[i].requests, request))
    end
  end
  if refused == 0 then
    for i = 1, subjects do
      local cost = tonumber(ARGV[4 + 2 * i])
      if cost then
        levels[i].tokens = take(levels[i].tokens, cost)
        save(KEYS[2 * i - 1], levels[i])
      end
    end
  end
  return answer()
end

if operation == 'end' then
  local seat, since = ARGV[3], tonumber(ARGV[4])
  for i = 1, subjects do
    local more, back = tonumber(ARGV[2 + 3 * i]), tonumber(ARGV[3 + 3 * i])
    local taken = tonumber(ARGV[4 + 3 * i])
    if since and taken then
      local level = load(KEYS[2 * i - 1])
      -- Part of the reservation has come back with time; giving back more than the rest would free what others took.
      local left = math.max(0, taken - passed(since))
      level.tokens = take(math.max(0, level.tokens - math.min(back, left)), more)
      save(KEYS[2 * i - 1], level)
    end
    redis.call('ZREM', KEYS[2 * i], seat)
  end
  return {}
end

if operation == 'renew' then
  for i = 1, subjects do
    enter(KEYS[2 * i], ARGV[4 + i], tonumber(ARGV[4]))
  end
  return {}
end

return redis.error_reply('unknown operation')
