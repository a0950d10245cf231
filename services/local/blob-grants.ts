import { createHmac, timingSafeEqual } from 'node:crypto';
import { HoldfastError } from '#contract/errors.ts';
import { GRANT_MAX_SECONDS, GRANT_UPLOAD_MAX_BYTES } from '#contract/limits.ts';
import type { BlobGrants, Grant } from '#ports/blobs.ts';
import type { Clock } from '#ports/clock.ts';
import { checkKey } from './blobs/key.ts';

export interface GrantSettings {
  /** Where the routes of ./blob-server.ts are mounted, such as `http://127.0.0.1:8080/objects`. */
  readonly baseUrl: string;
  /** 32 bytes that only this service knows. */
  readonly secret: Uint8Array;
  readonly clock: Clock;
}

/** What a grant's URL says it is for. */
export interface GrantClaim {
  readonly method: 'PUT' | 'GET';
  readonly key: string;
  readonly expiresAtMs: number;
  /** Upload only. */
  readonly lengthBytes?: number;
  /** Upload only: base64. */
  readonly sha256?: string;
}

/** Grants for a store behind ./blob-server.ts; to their holders they look like S3's presigned URLs. */
export function makeBlobGrants(settings: GrantSettings): BlobGrants {
  const grant = (claim: GrantClaim, headers: Grant['headers']): Grant => {
    checkKey(claim.key);
    const path = claim.key.split('/').map(encodeURIComponent).join('/');
    const query = new URLSearchParams({ expires: `${claim.expiresAtMs}` });
    if (claim.lengthBytes !== undefined) query.set('length', `${claim.lengthBytes}`);
    if (claim.sha256 !== undefined) query.set('sha256', claim.sha256);
    query.set('signature', signGrant(claim, settings.secret).toString('base64url'));
    return {
      url: `${settings.baseUrl}/${path}?${query}`,
      method: claim.method,
      headers,
      expiresAtMs: claim.expiresAtMs,
    };
  };
  const expiry = (ttlSeconds: number): number => {
    if (ttlSeconds > 0 && ttlSeconds <= GRANT_MAX_SECONDS) return settings.clock.nowMs() + ttlSeconds * 1000;
    throw new HoldfastError('limit', `A grant lasts up to ${GRANT_MAX_SECONDS} seconds, not ${ttlSeconds}`);
  };
  return {
    async grantUpload(key, lengthBytes, sha256, ttlSeconds) {
      if (!Number.isSafeInteger(lengthBytes) || lengthBytes < 0 || lengthBytes > GRANT_UPLOAD_MAX_BYTES) {
        throw new HoldfastError('limit', `An upload has up to ${GRANT_UPLOAD_MAX_BYTES} bytes, not ${lengthBytes}`);
      }
      if (sha256.length !== 32) throw new HoldfastError('usage', 'A SHA-256 has 32 bytes');
      const hash = Buffer.from(sha256).toString('base64');
      const claim: GrantClaim = { method: 'PUT', key, expiresAtMs: expiry(ttlSeconds), lengthBytes, sha256: hash };
      return grant(claim, {
        'content-length': `${lengthBytes}`,
        'if-none-match': '*',
        'x-amz-checksum-sha256': hash,
      });
    },
    async grantDownload(key, ttlSeconds) {
      return grant({ method: 'GET', key, expiresAtMs: expiry(ttlSeconds) }, {});
    },
  };
}

/** Reads the claim of a request back from its URL; `undefined` if it was not signed by us or is over. */
export function openGrant(
  request: { readonly method: string; readonly key: string; readonly query: URLSearchParams },
  settings: { readonly secret: Uint8Array; readonly clock: Clock },
): GrantClaim | undefined {
  const { method, key, query } = request;
  if (method !== 'PUT' && method !== 'GET') return undefined;
  const expiresAtMs = Number(query.get('expires') ?? Number.NaN);
  const length = query.get('length');
  const sha256 = query.get('sha256');
  const claim: GrantClaim = {
    method,
    key,
    expiresAtMs,
    ...(length === null ? {} : { lengthBytes: Number(length) }),
    ...(sha256 === null ? {} : { sha256 }),
  };
  const signature = Buffer.from(query.get('signature') ?? '', 'base64url');
  const expected = signGrant(claim, settings.secret);
  if (signature.length !== expected.length || !timingSafeEqual(signature, expected)) return undefined;
  return settings.clock.nowMs() < expiresAtMs ? claim : undefined;
}

function signGrant(claim: GrantClaim, secret: Uint8Array): Buffer {
  const { method, key, expiresAtMs, lengthBytes = null, sha256 = null } = claim;
  const text = JSON.stringify(['holdfast-grant-1', method, key, expiresAtMs, lengthBytes, sha256]);
  return createHmac('sha256', secret).update(text).digest();
}
