-- Turns a service's error into the HTTP/JSON error body, and takes gRPC's headers off HTTP/JSON answers.
--
-- A service sends the finished body, ASCII JSON, as metadata `x-millrace-error` beside its gRPC status. On the way back
-- this runs after the transcoder, which has made the HTTP status of the gRPC status and has left the metadata alone.
-- Answers to gRPC callers pass untouched; theirs are status, message and details.

-- What is said when no body came, by gRPC status. Such errors are made by gRPC itself or by a bug; their text is
-- written for us, so it is not passed on.
local UNSAID = {
  [1] = { "CANCELLED", "the request was cancelled" },
  [4] = { "DEADLINE_EXCEEDED", "the service did not answer in time" },
  [8] = { "RESOURCE_EXHAUSTED", "too many requests" },
  [12] = { "UNIMPLEMENTED", "the service does not know this call" },
  [14] = { "UNAVAILABLE", "the service is not available" },
  [16] = { "UNAUTHENTICATED", "the token was not accepted" },
}
local BUG = { "INTERNAL", "internal error" }

local GRPC_ONLY = {
  "grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding", "grpc-accept-encoding",
}

local function unsaid_body(headers, grpc_status)
  local status = tonumber(headers:get(":status"))
  local code, message = unpack(UNSAID[tonumber(grpc_status)] or BUG)
  if (headers:get("grpc-message") or ""):find("message larger than max", 1, true) then
    -- A small JSON body can become a large message; to the caller both are a body too large.
    status, code, message = 413, "INVALID_ARGUMENT", "the request body is too large"
    headers:replace(":status", "413")
  end
  return string.format(
    '{"code":%d,"message":"%s","error_code":"%s","details":[],"request_id":"%s"}',
    status, message, code, ((headers:get("x-request-id") or ""):gsub('["\\]', "\\%0"))
  )
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local grpc_status = headers:get("grpc-status")
  local failed = headers:get(":status") ~= "200" -- an answer to a gRPC caller is 200 whatever happened
  if not grpc_status or not (failed or headers:get("content-type") == "application/json") then
    return
  end

  local body
  if failed then
    body = headers:get("x-millrace-error")
    if not body then
      -- The service had sent headers before it failed, so the metadata is in the trailers. Asking for the body first
      -- is what keeps Envoy from sending the headers on, and makes the old handle on them invalid.
      handle:body(true)
      local trailers = handle:trailers()
      headers = handle:headers()
      body = trailers and trailers:get("x-millrace-error") or unsaid_body(headers, grpc_status)
    end
  end

  for _, name in ipairs(GRPC_ONLY) do
    headers:remove(name)
  end
  if failed then
    headers:replace("content-type", "application/json")
    headers:replace("content-length", tostring(#body))
    handle:body(true):setBytes(body)
  end
end
