-- Sends one request over and over; told by the environment. With N=1 every body is another one.
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
    return wrk.format(nil, nil, nil, string.gsub(body, "@", tostring(n)))
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
