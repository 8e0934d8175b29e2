-- For wrk: sends the bodies of a file in turn, one a line, and prints what it counted as JSON.
-- Arguments after "--": the file, the key, and where to begin in the file (0 to 1).

local requests = {}
local last

function init(arguments)
  local headers = { ["Content-Type"] = "application/json", ["X-API-KEY"] = arguments[2] }
  for line in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("POST", "/callback", headers, line)
  end
  last = math.floor(#requests * tonumber(arguments[3]))
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary, latency)
  local errors = summary.errors
  io.stderr:write(string.format(
    '{"answers":%d,"microseconds":%d,"p50":%d,"p99":%d,"max":%d,"errors":'
      .. '{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\n',
    summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout
  ))
end
