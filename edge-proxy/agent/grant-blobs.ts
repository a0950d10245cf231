import { createHash } from 'node:crypto';
import type { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import type { Id } from '#contract/ids.ts';
import {
  GRANT_BATCH_MAX,
  type grantSchema,
  grantsResponse,
  headResponse,
  listResponse,
} from '#contract/proxy-protocol.ts';
import type { BlobPage, Blobs, PutOptions } from '#ports/blobs.ts';
import type { Clock } from '#ports/clock.ts';
import type { Random } from '#ports/random.ts';
import { Batches } from './batches.ts';
import type { ControlPlane } from './control-plane.ts';
import type { HttpAnswer, HttpClient } from './http-client.ts';
import { type Patience, persist } from './patience.ts';

type WireGrant = z.infer<typeof grantSchema>;

/** Download grants kept for another range of the same object. */
const KEPT_MAX = 4096;
/** A grant with less time left than this is not used any more. */
const MARGIN_MS = 30_000;
const IDLE_MS = 30_000;

export interface GrantBlobsDependencies {
  readonly plane: ControlPlane;
  readonly http: HttpClient;
  readonly clock: Clock;
  readonly random: Random;
  readonly job: Id<'job'>;
  readonly signal?: AbortSignal;
  readonly patience: Patience;
}

/**
 * The vault's objects through grants: each upload and download goes straight to the store with a URL that
 * allows just that. A proxy can add objects and read them; changing and deleting is refused here and there.
 */
export class GrantBlobs implements Blobs {
  readonly #deps: GrantBlobsDependencies;
  readonly #path: string;
  readonly #kept = new Map<string, WireGrant>();
  readonly #downloads: Batches<string, WireGrant>;
  readonly #uploads: Batches<{ key: string; lengthBytes: number; sha256: string }, WireGrant>;
  readonly #heads: Batches<string, { sizeBytes: number; version: string } | null>;

  constructor(deps: GrantBlobsDependencies) {
    this.#deps = deps;
    this.#path = `/v1/proxy/jobs/${deps.job}`;
    const options = { signal: deps.signal };
    this.#downloads = new Batches(GRANT_BATCH_MAX, async (keys) => {
      return (await deps.plane.post(`${this.#path}/grants/downloads`, { keys }, grantsResponse, options)).grants;
    });
    this.#uploads = new Batches(GRANT_BATCH_MAX, async (objects) => {
      return (await deps.plane.post(`${this.#path}/grants/uploads`, { objects }, grantsResponse, options)).grants;
    });
    this.#heads = new Batches(GRANT_BATCH_MAX, async (keys) => {
      return (await deps.plane.post(`${this.#path}/objects/head`, { keys }, headResponse, options)).objects;
    });
  }

  async putIfAbsent(
    key: string,
    parts: readonly Uint8Array[],
    options: PutOptions = {},
  ): Promise<'created' | 'exists'> {
    const lengthBytes = parts.reduce((sum, part) => sum + part.length, 0);
    const sha256 = Buffer.from(options.sha256 ?? hashOf(parts)).toString('base64');
    let mayHaveArrived = false;
    return this.#persist(options.signal, async () => {
      const grant = await this.#uploads.ask({ key, lengthBytes, sha256 });
      let answer: HttpAnswer;
      try {
        answer = await this.#send(grant, {}, parts, options.signal);
      } catch (error) {
        mayHaveArrived = true;
        throw error;
      }
      if (answer.status >= 200 && answer.status < 300) return 'created';
      if (answer.status === 412) {
        // Keys are random: if a try of ours may have got through, what is there is what it brought.
        if (!mayHaveArrived) return 'exists';
        return (await this.head(key))?.sizeBytes === lengthBytes ? 'created' : 'exists';
      }
      if (answer.status >= 500) mayHaveArrived = true;
      throw failureOf(answer, key);
    });
  }

  async get(key: string): Promise<{ content: Uint8Array; version: string } | undefined> {
    const answer = await this.#download(key, {});
    if (answer.status === 404) return undefined;
    return { content: answer.body, version: answer.headers.etag ?? '' };
  }

  async getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    if (length === 0) return new Uint8Array(0);
    const answer = await this.#download(key, { range: `bytes=${offset}-${offset + length - 1}` }, signal);
    if (answer.status === 404) throw new HoldfastError('missing', `The object ${key} is gone`, { data: { key } });
    const body = answer.status === 200 ? answer.body.subarray(offset, offset + length) : answer.body;
    if (answer.status === 416 || body.length !== length) {
      throw new HoldfastError('damaged', `The object ${key} is shorter than it must be`, {
        data: { key, offset, length },
      });
    }
    return body;
  }

  async head(key: string): Promise<{ sizeBytes: number; version: string } | undefined> {
    return (await this.#heads.ask(key)) ?? undefined;
  }

  list(prefix: string, cursor?: string): Promise<BlobPage> {
    const query = new URLSearchParams({ prefix, ...(cursor === undefined ? {} : { cursor }) });
    return this.#deps.plane.get(`${this.#path}/objects?${query}`, listResponse, {
      signal: this.#deps.signal,
    }) as Promise<BlobPage>;
  }

  async replaceIf(key: string): Promise<string | undefined> {
    throw refused(key);
  }

  async delete(key: string): Promise<void> {
    throw refused(key);
  }

  async #download(key: string, headers: Record<string, string>, signal?: AbortSignal): Promise<HttpAnswer> {
    return this.#persist(signal, async () => {
      const grant = await this.#downloadGrant(key);
      const answer = await this.#send(grant, headers, [], signal);
      if ([200, 206, 404, 416].includes(answer.status)) return answer;
      this.#kept.delete(key);
      throw failureOf(answer, key);
    });
  }

  async #downloadGrant(key: string): Promise<WireGrant> {
    const kept = this.#kept.get(key);
    if (kept !== undefined && kept.expiresAtMs - this.#deps.clock.nowMs() > MARGIN_MS) return kept;
    const grant = await this.#downloads.ask(key);
    this.#kept.delete(key);
    this.#kept.set(key, grant);
    if (this.#kept.size > KEPT_MAX) this.#kept.delete(this.#kept.keys().next().value!);
    return grant;
  }

  #send(
    grant: WireGrant,
    headers: Record<string, string>,
    parts: readonly Uint8Array[],
    signal: AbortSignal | undefined,
  ) {
    const all = { ...grant.headers, ...headers };
    return this.#deps.http.send({
      method: grant.method,
      url: grant.url,
      headers: all,
      parts,
      idleMs: IDLE_MS,
      signal: this.#either(signal),
    });
  }

  /** The job's end ends every transfer, also one that its caller would still wait for. */
  #either(signal: AbortSignal | undefined): AbortSignal | undefined {
    const own = this.#deps.signal;
    return signal === undefined || own === undefined ? (signal ?? own) : AbortSignal.any([signal, own]);
  }

  #persist<T>(signal: AbortSignal | undefined, act: () => Promise<T>): Promise<T> {
    const { clock, random, patience } = this.#deps;
    return persist(patience, { clock, random, signal: this.#either(signal) }, act);
  }
}

function hashOf(parts: readonly Uint8Array[]): Buffer {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
}

/** What a store's refusal means, after S3's table of error answers. */
function failureOf(answer: HttpAnswer, key: string): HoldfastError {
  const { status } = answer;
  if (status === 507)
    return new HoldfastError('target-full', 'The object store has no space left', {
      remedy: 'Make space in the store',
    });
  if (status === 400 && answer.body.includes('BadDigest')) {
    return new HoldfastError('damaged', `The object ${key} changed on its way to the store`, { retryable: true });
  }
  // 403: the grant ran out on the way; the next attempt asks for a new one. 409: another conditional write was under way.
  const mayPass = status >= 500 || [400, 403, 408, 409, 429].includes(status);
  return new HoldfastError('store-failed', `The object store answered with status ${status} for ${key}`, {
    retryable: mayPass,
    data: { key, status },
  });
}

function refused(key: string): HoldfastError {
  return new HoldfastError('forbidden', `A proxy can add objects, never change or delete them (${key})`);
}
