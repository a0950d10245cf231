import type { z } from 'zod';
import type { Ids, TenantContext } from './context.ts';
import type { ProxyContext } from './proxy-tokens.ts';

/** Who may call: a person or program with an API key, an enrolled proxy, or anybody. */
export type Audience = 'tenant' | 'proxy' | 'public';

interface Callers {
  readonly tenant: TenantContext & { readonly principal: string };
  readonly proxy: ProxyContext;
  readonly public: undefined;
}

/** What a handler gets: the caller, the checked parts of the request, and ids that repeat with an Idempotency-Key. */
export interface Call<A extends Audience, P, Q, B> {
  readonly caller: Callers[A];
  readonly params: P;
  readonly query: Q;
  readonly body: B;
  readonly ids: Ids;
  /** Aborted when the caller goes away. */
  readonly signal: AbortSignal;
}

/** The outcome of a handler that says more than its body. */
export interface Answer<R> {
  readonly body: R;
  readonly headers?: Readonly<Record<string, string>>;
}

interface Definition<
  A extends Audience,
  P extends z.ZodType,
  Q extends z.ZodType,
  B extends z.ZodType,
  R extends z.ZodType,
> {
  /** Name in the OpenAPI document; what generated clients call it. */
  readonly id: string;
  readonly audience: A;
  readonly method: 'get' | 'post' | 'delete';
  /** As OpenAPI writes it: `/v1/jobs/{job}`. */
  readonly path: string;
  readonly summary: string;
  readonly status: 200 | 201 | 202 | 204;
  readonly params?: P;
  readonly query?: Q;
  readonly body?: B;
  readonly response?: R;
  readonly bodyMaxBytes?: number;
  handle(call: Call<A, z.output<P>, z.output<Q>, z.output<B>>): Promise<z.input<R> | Answer<z.input<R>>>;
}

/** One operation of the API with its types erased, for the table that the app is built from. */
// biome-ignore lint/suspicious/noExplicitAny: the types are checked where the operation is defined
export type Operation = Definition<any, any, any, any, any>;

/**
 * Defines an operation: its schemas check the request, filter the answer (so that what is stored never leaks)
 * and make the OpenAPI document.
 */
export function operation<
  A extends Audience,
  P extends z.ZodType = z.ZodUndefined,
  Q extends z.ZodType = z.ZodUndefined,
  B extends z.ZodType = z.ZodUndefined,
  R extends z.ZodType = z.ZodUndefined,
>(definition: Definition<A, P, Q, B, R>): Operation {
  return definition;
}

const ANSWER = Symbol('answer');

/** Answers with headers. */
export function answer<R>(body: R, headers: Readonly<Record<string, string>>): Answer<R> {
  return { body, headers, [ANSWER]: true } as Answer<R>;
}

export function isAnswer(value: unknown): value is Answer<unknown> {
  return typeof value === 'object' && value !== null && ANSWER in value;
}
