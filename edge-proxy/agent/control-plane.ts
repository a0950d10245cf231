import { CompactSign } from 'jose';
import type { z } from 'zod';
import { HoldfastError } from '#contract/errors.ts';
import { errorOfProblem, problemSchema } from '#contract/problem.ts';
import { ASSERTION_AUDIENCE, ASSERTION_MAX_SECONDS, tokenResponse } from '#contract/proxy-protocol.ts';
import { msOfTime } from '#contract/time.ts';
import type { Clock } from '#ports/clock.ts';
import type { Random } from '#ports/random.ts';
import type { HttpAnswer, HttpClient } from './http-client.ts';
import type { Identity } from './identity.ts';
import { type Patience, persist } from './patience.ts';

/** A token is renewed when less than this is left of it. */
const RENEW_MS = 60_000;
const IDLE_MS = 30_000;

export interface ControlPlaneDependencies {
  /** Such as `https://api.example.com`, without a path. */
  readonly baseUrl: string;
  readonly http: HttpClient;
  readonly clock: Clock;
  readonly random: Random;
  readonly identity: Identity;
  /** For calls on which a job depends: an outage shorter than this costs a job nothing but time. */
  readonly patience: Patience;
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Longest silence, beyond the usual, that the call itself asks for (long polls). */
  readonly waitMs?: number;
  /** Instead of the usual. */
  readonly patience?: Patience;
}

/** Calls to the control plane in the proxy's name: signs in, keeps the token fresh, tries again through outages. */
export class ControlPlane {
  readonly #deps: ControlPlaneDependencies;
  #token: { text: string; expiresAtMs: number } | undefined;
  #signingIn: Promise<string> | undefined;
  /** What must be added to our clock to get the server's. */
  #skewMs = 0;

  constructor(deps: ControlPlaneDependencies) {
    this.#deps = deps;
  }

  get<S extends z.ZodType>(path: string, schema: S, options?: CallOptions): Promise<z.output<S>> {
    return this.#call('GET', path, undefined, schema, options);
  }

  /** Every call may be made twice: the protocol is such that repeating one does no harm. */
  post<S extends z.ZodType>(path: string, body: unknown, schema: S, options?: CallOptions): Promise<z.output<S>> {
    return this.#call('POST', path, body, schema, options);
  }

  async #call<S extends z.ZodType>(
    method: 'GET' | 'POST',
    path: string,
    body: unknown,
    schema: S,
    options: CallOptions = {},
  ): Promise<z.output<S>> {
    return this.#persist(options, async () => {
      let answer = await this.#send(method, path, body, await this.#bearer(), options);
      if (answer.status === 401) {
        // Expired under way, or the control plane was set up anew: sign in once more before giving up.
        this.#token = undefined;
        answer = await this.#send(method, path, body, await this.#bearer(), options);
      }
      return contentOf(answer, schema);
    });
  }

  #persist<T>(options: CallOptions, act: () => Promise<T>): Promise<T> {
    const { clock, random, patience } = this.#deps;
    return persist(options.patience ?? patience, { clock, random, signal: options.signal }, act);
  }

  async #bearer(): Promise<string> {
    const now = this.#deps.clock.nowMs() + this.#skewMs;
    if (this.#token !== undefined && this.#token.expiresAtMs - now > RENEW_MS) return this.#token.text;
    this.#signingIn ??= this.#signIn().finally(() => {
      this.#signingIn = undefined;
    });
    return this.#signingIn;
  }

  async #signIn(): Promise<string> {
    try {
      return await this.#exchange();
    } catch (error) {
      const serverTime = error instanceof HoldfastError ? error.data.serverTime : undefined;
      if (typeof serverTime !== 'string' || Number.isNaN(msOfTime(serverTime))) throw error;
      // Refused with the server's time at hand: if it is the clock, the second try is right.
      this.#skewMs = msOfTime(serverTime) - this.#deps.clock.nowMs();
      return this.#exchange();
    }
  }

  async #exchange(): Promise<string> {
    const assertion = await this.#assertion();
    const answer = await this.#send('POST', '/v1/proxy/token', { assertion }, undefined, {});
    const { accessToken, expiresAt, serverTime } = contentOf(answer, tokenResponse);
    this.#skewMs = msOfTime(serverTime) - this.#deps.clock.nowMs();
    this.#token = { text: accessToken, expiresAtMs: msOfTime(expiresAt) };
    return accessToken;
  }

  async #assertion(): Promise<string> {
    const { identity, clock, random } = this.#deps;
    const { proxy } = identity;
    if (proxy === undefined) throw new HoldfastError('unauthorized', 'The proxy is not enrolled');
    const iat = Math.floor((clock.nowMs() + this.#skewMs) / 1000);
    const jti = Buffer.from(random.bytes(16)).toString('base64url');
    const claims = { iss: proxy, sub: proxy, aud: ASSERTION_AUDIENCE, iat, exp: iat + ASSERTION_MAX_SECONDS, jti };
    return new CompactSign(Buffer.from(JSON.stringify(claims)))
      .setProtectedHeader({ alg: 'EdDSA', kid: proxy })
      .sign(identity.signKey);
  }

  #send(method: 'GET' | 'POST', path: string, body: unknown, bearer: string | undefined, options: CallOptions) {
    const content = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    return this.#deps.http.send({
      method,
      url: this.#deps.baseUrl + path,
      headers: {
        ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
        ...(content === undefined
          ? {}
          : { 'content-type': 'application/json', 'content-length': String(content.length) }),
      },
      ...(content === undefined ? {} : { parts: [content] }),
      idleMs: IDLE_MS + (options.waitMs ?? 0),
      signal: options.signal,
    });
  }
}

/** The checked content of an answer; a problem is thrown as the error it stands for. */
export function contentOf<S extends z.ZodType>(answer: HttpAnswer, schema: S): z.output<S> {
  const value = parseJson(answer.body);
  if (answer.status >= 200 && answer.status < 300) {
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    throw new HoldfastError('protocol', 'The control plane’s answer is not what was agreed', {
      remedy: 'Bring proxy and control plane to the same version',
      cause: parsed.error,
    });
  }
  const problem = problemSchema.safeParse(value);
  const error = problem.success
    ? errorOfProblem(problem.data)
    : new HoldfastError('store-failed', `The control plane answered with status ${answer.status}`);
  // A gateway before the control plane knows nothing of our problems; a busy or broken server may recover.
  const mayPass = answer.status >= 500 || answer.status === 429 || answer.status === 408;
  return raise(error, error.retryable || mayPass);
}

function raise(error: HoldfastError, retryable: boolean): never {
  if (error.retryable === retryable) throw error;
  const remedy = error.remedy === undefined ? {} : { remedy: error.remedy };
  throw new HoldfastError(error.code, error.message, { ...remedy, data: error.data, retryable, cause: error });
}

function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    return undefined;
  }
}
