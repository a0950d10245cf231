import type { FileHandle } from 'node:fs/promises';
import { type Context, Hono } from 'hono';
import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import type { Clock } from '#ports/clock.ts';
import { type GrantClaim, openGrant } from './blob-grants.ts';
import type { FileBlobs } from './file-blobs.ts';

/** Bytes read from the file for each piece of an answer. */
const PIECE_BYTES = 1024 * 1024;

export interface BlobServerSettings {
  readonly blobs: FileBlobs;
  /** The same as of the grants. */
  readonly secret: Uint8Array;
  readonly clock: Clock;
}

/**
 * The other end of the grants: PUT and GET of one object each, nothing without a signature. Answers as S3 does,
 * status by status and code by code, so that a proxy needs one client for both. Mount it under the grants' base URL.
 *
 * @example api.route('/objects', blobServer({ blobs, secret, clock }))
 */
export function blobServer(settings: BlobServerSettings): Hono {
  const app = new Hono();
  app.put('/*', async (c) => {
    const claim = claimOf(c, settings);
    if (claim === undefined) return forbidden(c);
    return upload(c, claim, settings.blobs);
  });
  app.get('/*', async (c) => {
    const claim = claimOf(c, settings);
    if (claim === undefined || c.req.method !== 'GET') return forbidden(c);
    return download(c, claim, settings.blobs);
  });
  app.onError((error, c) => {
    const report = error instanceof HoldfastError ? error : undefined;
    if (report?.code === 'target-full') return failure(c, 507, 'InsufficientStorage', report.message);
    if (report?.code === 'usage' || report?.code === 'limit') return failure(c, 400, 'InvalidRequest', report.message);
    if (report?.retryable) return failure(c, 503, 'SlowDown', 'Try again later.');
    return failure(c, 500, 'InternalError', 'The store could not do this.');
  });
  return app;
}

function claimOf(c: Context, settings: BlobServerSettings): GrantClaim | undefined {
  const url = new URL(c.req.url);
  // What the sub-app is mounted under is part of the path but not of the key.
  const mountedAt = c.req.routePath.slice(0, -1);
  let key: string;
  try {
    key = decodeURIComponent(url.pathname.slice(mountedAt.length));
  } catch {
    return undefined;
  }
  return openGrant({ method: c.req.method, key, query: url.searchParams }, settings);
}

async function upload(c: Context, claim: GrantClaim, blobs: FileBlobs): Promise<Response> {
  const { lengthBytes, sha256 } = claim;
  const isAsSigned =
    lengthBytes !== undefined &&
    sha256 !== undefined &&
    c.req.header('if-none-match') === '*' &&
    c.req.header('x-amz-checksum-sha256') === sha256 &&
    c.req.header('content-length') === `${lengthBytes}`;
  if (!isAsSigned) return forbidden(c);
  const body: AsyncIterable<Uint8Array> = c.req.raw.body ?? none();
  try {
    const answer = await blobs.putStreamIfAbsent(claim.key, body, {
      lengthBytes,
      sha256: Buffer.from(sha256, 'base64'),
      signal: c.req.raw.signal,
    });
    if (answer === 'created') return c.body(null, 200);
    // Read to the end what is on its way: many clients report a broken connection rather than an early answer.
    for await (const _ of body);
    return failure(c, 412, 'PreconditionFailed', 'At least one of the pre-conditions you specified did not hold');
  } catch (error) {
    if (!isHoldfastError(error, 'damaged')) throw error;
    return failure(c, 400, error.retryable ? 'IncompleteBody' : 'BadDigest', error.message);
  }
}

async function download(c: Context, claim: GrantClaim, blobs: FileBlobs): Promise<Response> {
  const opened = await blobs.openForReading(claim.key);
  if (opened === undefined) return failure(c, 404, 'NoSuchKey', 'The specified key does not exist.');
  const { handle, sizeBytes } = opened;
  const range = rangeOf(c.req.header('range'), sizeBytes);
  if (range === 'unsatisfiable') {
    await handle.close();
    c.header('content-range', `bytes */${sizeBytes}`);
    return failure(c, 416, 'InvalidRange', 'The requested range is not satisfiable');
  }
  const { start, end } = range ?? { start: 0, end: sizeBytes };
  c.header('accept-ranges', 'bytes');
  c.header('content-type', 'application/octet-stream');
  c.header('content-length', `${end - start}`);
  if (range !== undefined) c.header('content-range', `bytes ${start}-${end - 1}/${sizeBytes}`);
  return c.body(piecesOf(handle, start, end), range === undefined ? 200 : 206);
}

/** One range as RFC 9110 has it, as [start, end); several or malformed ones are ignored, as S3 does. */
function rangeOf(
  header: string | undefined,
  sizeBytes: number,
): { start: number; end: number } | 'unsatisfiable' | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? '');
  if (match === null || (match[1] === '' && match[2] === '')) return undefined;
  const isSuffix = match[1] === '';
  const start = isSuffix ? Math.max(0, sizeBytes - Number(match[2])) : Number(match[1]);
  const end = isSuffix || match[2] === '' ? sizeBytes : Math.min(sizeBytes, Number(match[2]) + 1);
  if (!isSuffix && match[2] !== '' && Number(match[2]) < start) return undefined;
  return start >= sizeBytes ? 'unsatisfiable' : { start, end };
}

/** Streams a part of a file and closes it, whether the reader takes all of it or goes away. */
function piecesOf(handle: FileHandle, start: number, end: number): ReadableStream<Uint8Array> {
  let at = start;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          if (at < end) {
            const piece = Buffer.allocUnsafeSlow(Math.min(PIECE_BYTES, end - at));
            const { bytesRead } = await handle.read(piece, 0, piece.length, at);
            if (bytesRead === 0) throw new HoldfastError('damaged', 'The object ended early');
            at += bytesRead;
            controller.enqueue(piece.subarray(0, bytesRead));
          }
          if (at < end) return;
          await handle.close();
          controller.close();
        } catch (error) {
          await handle.close();
          controller.error(error);
        }
      },
      async cancel() {
        await handle.close();
      },
    },
    { highWaterMark: 0 },
  );
}

function forbidden(c: Context): Response {
  return failure(c, 403, 'AccessDenied', 'The grant is missing, over, or for another request.');
}

function failure(c: Context, status: 400 | 403 | 404 | 412 | 416 | 500 | 503 | 507, code: string, message: string) {
  const escaped = message.replace(/[<>&]/g, (character) => `&#${character.charCodeAt(0)};`);
  const xml = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>${escaped}</Message></Error>`;
  return c.body(xml, status, { 'content-type': 'application/xml' });
}

async function* none(): AsyncGenerator<Uint8Array> {}
