-- What lighttpd.conf sends in place of the errors of a stream: at any status but 200 an EventSource gives up for good.
-- Whatever is no stream keeps its status.
local r = lighty.r
local accept = r.req_header["Accept"]
local stream = r.req_attr["request.method"] == "GET" and accept and accept:find("text/event-stream", 1, true)
if stream and r.req_item.http_status >= 502 then
  r.resp_header["Content-Type"] = "text/event-stream"
  r.resp_header["Cache-Control"] = "no-store"
  -- Pages of other origins need these, and there is nothing here to read.
  if r.req_header["Origin"] then
    r.resp_header["Access-Control-Allow-Origin"] = r.req_header["Origin"]
    r.resp_header["Access-Control-Allow-Credentials"] = "true"
  end
  r.resp_body.set("retry: 3000\n")
  return 200
end
