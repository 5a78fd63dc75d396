-- Sends the request that the environment describes, again and again. With BENCH_UNIQUE every body is
-- another one. With BENCH_AMONG the target is drawn from that many, and its number replaces `@`. With
-- BENCH_CALLERS the caller is drawn from that many.
local method = os.getenv("BENCH_METHOD") or "GET"
local body = os.getenv("BENCH_BODY")
wrk.method = method
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_KEY")
if os.getenv("BENCH_ACCEPT") then
  wrk.headers["Accept-Encoding"] = os.getenv("BENCH_ACCEPT")
end
if body and body ~= "" then
  wrk.body = body
  wrk.headers["Content-Type"] = "application/json"
end

if os.getenv("BENCH_UNIQUE") then
  local n = tonumber(os.getenv("BENCH_UNIQUE"))
  request = function()
    n = n + 1
    return wrk.format(nil, nil, nil, (string.gsub(body, "@", tostring(n))))
  end
end

if os.getenv("BENCH_AMONG") then
  local count = tonumber(os.getenv("BENCH_AMONG"))
  local before, after
  -- wrk knows its host only once it runs, so the template is made then.
  init = function()
    local text = wrk.format(method, (string.gsub(os.getenv("BENCH_TARGET"), "@", "\1")))
    before, after = string.match(text, "^(.-)\1(.*)$")
  end
  request = function()
    return before .. math.random(0, count - 1) .. after
  end
end

if os.getenv("BENCH_CALLERS") then
  local requests = {}
  init = function()
    for number = 1, tonumber(os.getenv("BENCH_CALLERS")) do
      -- As in parts/callers.py.
      wrk.headers["Authorization"] = string.format("Bearer bench-%048d", number)
      requests[number] = wrk.format()
    end
  end
  request = function()
    return requests[math.random(#requests)]
  end
end

done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"micros":%d,"bytes":%d,"errors":%d,"p50":%d,"p99":%d}\n',
    summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
