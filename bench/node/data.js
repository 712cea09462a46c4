// The rows that all peers are measured on (bench/src/data.rs, bench/src/deliveries.rs).
import { createHash } from "node:crypto";

export const PAGE = 50;
export const PLACES = 16;
const ENTRIES = 1000;

/** The token that opens this session. */
export const token = (session) => `bench-${String(session).padStart(37, "0")}`;

/** What is stored of a token. */
export const digest = (token) => createHash("sha256").update(token).digest("hex");

/** The id that the page of log entries at this place comes before. */
export const placeBefore = (shape, place) => shape.logs - shape.depth - place * PAGE + 1;

/** A log entry to be written. */
export const entry = (number, workflow_id) => ({
  level: "info",
  message: `Node HTTP Request ${number} finished with status 200 after 42 ms`,
  workflow_id,
  metadata: { node: "HTTP Request", run: number, ms: 42 },
});

export const entries = (make) => Array.from({ length: ENTRIES }, (_, number) => make(number));

/** A delivery to be written. */
export function newDelivery(number, workflow_id) {
  const event = "workflow.finished";
  const [status, attempts, response_code, error] = [
    ["failed", 5, 503, "503 Service Unavailable"],
    ["delivered", 1, 200, null],
    ["pending", 0, null, null],
  ][number % 3];
  const page = `https://aura.example.org/workflows/${workflow_id}`;
  const links = `{"self":"${page}","logs":"${page}/logs"}`;
  const created_at = new Date();
  return {
    workflow_id,
    url: `https://hooks.example.org/v1/${workflow_id}`,
    event,
    status,
    attempts,
    response_code,
    error,
    payload: `{"event":"${event}","workflow":${workflow_id},"run":${number},"status":"success","nodes":8,"ms":42,"links":${links}}`,
    created_at,
    delivered_at: status === "delivered" ? created_at : null,
  };
}
