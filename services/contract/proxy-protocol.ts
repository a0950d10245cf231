/** What an edge proxy says to the control plane and hears from it. Each message is checked at both ends. */

import { z } from 'zod';
import { idSchema } from './ids.ts';
import { jobWork, outcomeSchema, progressSchema } from './jobs.ts';
import { BLOB_KEY_MAX_BYTES, QUEUE_WAIT_MAX_SECONDS } from './limits.ts';
import { errorReportSchema } from './problem.ts';
import { machineSchema } from './sources.ts';
import { nameSchema } from './tenants.ts';
import { timeSchema } from './time.ts';

const key32 = z.base64url().length(43, 'must be 32 bytes in base64url');
const count = z.number().int().nonnegative();

/** Grants asked for at once. */
export const GRANT_BATCH_MAX = 64;
/** Bytes of a signed point; it names disks and images, not data. */
export const POINT_MAX_BYTES = 256 * 1024;
/** Index segments one commit may add. */
export const COMMIT_MAX_SEGMENTS = 256;
/** Seconds an assertion may live, and how far apart the two clocks may be. */
export const ASSERTION_MAX_SECONDS = 60;
export const CLOCK_SKEW_MAX_SECONDS = 120;
/** Audience of the proxies' assertions. */
export const ASSERTION_AUDIENCE = 'holdfast-control-plane';

/**
 * First contact: the activation token and the keys the proxy has made. `proof` is the Ed25519 signature
 * (base64url) over {@link enrolmentText}, which shows that the caller holds the private key.
 */
export const enrolRequest = z.object({
  activationToken: z.string().min(20).max(200),
  name: nameSchema,
  version: z.string().max(40),
  platform: z.string().max(80),
  publicKey: key32,
  sealKey: key32,
  proof: z.base64url().max(128),
});
export type EnrolRequest = z.infer<typeof enrolRequest>;
export const enrolResponse = z.object({ proxy: idSchema('proxy'), tenant: idSchema('tenant'), serverTime: timeSchema });

/** The bytes that an enrolment's proof signs. */
export function enrolmentText(publicKey: string, sealKey: string, activationToken: string): string {
  return `holdfast enrol v1\n${publicKey}\n${sealKey}\n${activationToken}`;
}

/** An assertion: a JWT by the proxy's key (EdDSA; kid, iss and sub its id; aud, iat, exp, jti), for an access token. */
export const tokenRequest = z.object({ assertion: z.string().min(20).max(4000) });
export const tokenResponse = z.object({ accessToken: z.string(), expiresAt: timeSchema, serverTime: timeSchema });

/** Long poll for tasks. A task that is not acknowledged comes again after `visibilitySeconds`. */
export const receiveRequest = z.object({
  waitSeconds: z.number().min(0).max(QUEUE_WAIT_MAX_SECONDS).default(QUEUE_WAIT_MAX_SECONDS),
  max: z.number().int().min(1).max(10).default(1),
  /** The proxy has just started and works on nothing: send at once what it had begun. */
  restarted: z.boolean().default(false),
});

/** A job to do, or to go on with: the same job may be delivered many times. */
export const taskSchema = z.object({
  job: idSchema('job'),
  receipt: z.string(),
  deliveries: count,
  attempt: count,
  work: jobWork,
  machine: machineSchema,
  vault: idSchema('vault'),
  /** Send progress at least this often; it is the job's heartbeat. */
  heartbeatSeconds: z.number().positive(),
  bytesPerSecond: z.number().int().positive().optional(),
});
export type Task = z.infer<typeof taskSchema>;
export const receiveResponse = z.object({ tasks: z.array(taskSchema) });
export const ackRequest = z.object({ receipt: z.string().max(2000) });

/** The proxy's own sign of life. */
export const heartbeatRequest = z.object({
  version: z.string().max(40),
  running: z.array(idSchema('job')).max(64),
});
export const heartbeatResponse = z.object({ serverTime: timeSchema });

/** A job's heartbeat. */
export const progressRequest = z.object({ progress: progressSchema.optional() });
/** `cancel`: stop, clean up and report `cancelled`. */
export const progressResponse = z.object({ cancel: z.boolean() });

export const completeRequest = z.object({ outcome: outcomeSchema });
export const failRequest = z.object({ error: errorReportSchema });

/** The vault's keys as `encodeKeys` writes them, sealed to the proxy's X25519 key (base64). */
export const vaultResponse = z.object({ vault: idSchema('vault'), sealedKeys: z.base64() });

/** Keys relative to the vault: `packs/…`, `index/…`, `points/…`, `vault`; no dots-only parts. */
export const objectKey = z
  .string()
  .max(BLOB_KEY_MAX_BYTES - 64)
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*(\/[A-Za-z0-9][A-Za-z0-9._-]*)*$/, 'must be an object key of the vault');
const prefix = z
  .string()
  .max(BLOB_KEY_MAX_BYTES - 64)
  .regex(/^([A-Za-z0-9][A-Za-z0-9._-]*\/?)*$/);

export const segmentRef = z.object({ key: objectKey, sizeBytes: count });
export const generationSchema = z.object({ number: count, segments: z.array(segmentRef) });
export const sessionSchema = z.object({
  id: idSchema('session'),
  machine: idSchema('machine'),
  startEpoch: count,
  token: count,
  generation: generationSchema,
});
export const openSessionRequest = z.object({ machine: idSchema('machine'), holder: z.string().min(1).max(200) });
/** Names a session together with its fencing token. */
export const sessionRef = z.object({ machine: idSchema('machine'), token: count });
export const commitRequest = sessionRef.extend({
  segments: z.array(segmentRef).max(COMMIT_MAX_SEGMENTS),
  pointKey: objectKey,
  point: z.base64().max(Math.ceil(POINT_MAX_BYTES / 3) * 4),
});

export const grantSchema = z.object({
  url: z.url(),
  method: z.enum(['PUT', 'GET']),
  headers: z.record(z.string(), z.string()),
  expiresAtMs: z.number(),
});
export const uploadGrantsRequest = z.object({
  objects: z
    .array(z.object({ key: objectKey, lengthBytes: count, sha256: z.base64() }))
    .min(1)
    .max(GRANT_BATCH_MAX),
});
export const downloadGrantsRequest = z.object({ keys: z.array(objectKey).min(1).max(GRANT_BATCH_MAX) });
export const grantsResponse = z.object({ grants: z.array(grantSchema) });

export const listQuery = z.object({ prefix: prefix.default(''), cursor: z.string().max(2048).optional() });
export const listResponse = z.object({
  blobs: z.array(z.object({ key: z.string(), sizeBytes: count })),
  next: z.string().optional(),
});

/** Objects looked up at once, each with its size or `null`. */
export const headRequest = z.object({ keys: z.array(objectKey).min(1).max(GRANT_BATCH_MAX) });
export const headResponse = z.object({
  objects: z.array(z.object({ sizeBytes: count, version: z.string() }).nullable()),
});

/** What a source offers, as its proxy sees it. */
export const inventoryRequest = z.object({
  machines: z
    .array(z.object({ name: nameSchema, disks: z.array(z.object({ name: nameSchema, sizeBytes: count })).max(64) }))
    .max(1000),
});
