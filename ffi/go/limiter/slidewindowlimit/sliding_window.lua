-- Grants when fewer than `rate` grants lie in the period that ends now, and returns the entry, by which it can be given
-- back; else the microseconds to wait.
-- KEYS[1] is a list of the last grants, the oldest first: the time, and behind a colon how far it is ahead of the
-- clock, where the clock was set back. ARGV: rate, period in microseconds, life of the list in milliseconds.
local rate, per = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local ahead, moved = 0, false
local newest = redis.call('LINDEX', KEYS[1], -1)
if newest then
  local time, shift = string.match(newest, '^(%d+):?(%d*)$')
  local last = tonumber(time)
  ahead = tonumber(shift) or 0
  now = now + ahead
  if now < last then
    -- From here on time goes at the clock's pace again.
    ahead, now, moved = ahead + last - now, last, true
  end
end
local entry = string.format('%.0f', now)
if ahead > 0 then
  entry = entry .. ':' .. string.format('%.0f', ahead)
end
if redis.call('LLEN', KEYS[1]) >= rate then
  local oldest = string.match(redis.call('LINDEX', KEYS[1], 0), '^%d+')
  local wait = oldest + per - now
  if wait > 0 then
    if moved then
      redis.call('LSET', KEYS[1], -1, entry)
    end
    return wait
  end
  redis.call('LPOP', KEYS[1])
end
redis.call('RPUSH', KEYS[1], entry)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return entry
