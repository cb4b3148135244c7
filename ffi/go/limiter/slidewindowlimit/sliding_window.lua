-- Grants when fewer than `rate` grants lie in the period that ends now, and returns 0; else the microseconds to wait.
-- KEYS[1] is a sorted set of the last grants, each by its time; where the clock was set back, its member `ahead` has how
-- far times are ahead of the clock, as a negative number. ARGV: rate, period in microseconds, life of the set in
-- milliseconds, name of this grant. The name is the caller's, so that a call that is sent again counts once.
if redis.call('ZSCORE', KEYS[1], ARGV[4]) then
  return 0
end
local rate, per = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local ahead, others = 0, 0
if oldest[1] == 'ahead' then
  ahead, others = -tonumber(oldest[2]), 1
  now = now + ahead
  oldest = redis.call('ZRANGE', KEYS[1], 1, 1, 'WITHSCORES')
end
if oldest[1] then
  local last = tonumber(redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2])
  if now < last then
    -- From here on time goes at the clock's pace again.
    ahead, now = ahead + last - now, last
    redis.call('ZADD', KEYS[1], string.format('%.0f', -ahead), 'ahead')
    others = 1
  end
  if redis.call('ZCARD', KEYS[1]) - others >= rate then
    local wait = tonumber(oldest[2]) + per - now
    if wait > 0 then
      return wait
    end
    redis.call('ZREM', KEYS[1], oldest[1])
  end
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 0
