import { OpenAPIHono } from '@hono/zod-openapi';
import type { Context } from 'hono';
import { HoldfastError } from '#contract/errors.ts';
import { API_BODY_MAX_BYTES } from '#contract/limits.ts';
import { PROBLEM_TYPE, problemSchema } from '#contract/problem.ts';
import { verifyApiKey } from './api-keys.ts';
import { fingerprintOf, idsWithoutKey, type KeptAnswer, runOnce } from './idempotency.ts';
import { isAnswer, type Operation } from './operation.ts';
import { checkPart, problemAnswer } from './problem-answer.ts';
import { proxyOperations } from './proxy-operations.ts';
import { verifyAccessToken } from './proxy-tokens.ts';
import type { Services } from './services.ts';
import { tenantOperations } from './tenant-operations.ts';

const IDEMPOTENCY_KEY_MAX = 200;

/**
 * The whole API as one app: a pure value, which a server or a function's handler serves.
 *
 * @example serve({ fetch: buildApi(services).fetch, port: 8080 })
 */
export function buildApi(services: Services): OpenAPIHono {
  const app = new OpenAPIHono();
  const operations = [...tenantOperations(services), ...proxyOperations(services)];
  app.openAPIRegistry.registerComponent('securitySchemes', 'apiKey', { type: 'http', scheme: 'bearer' });
  app.openAPIRegistry.registerComponent('securitySchemes', 'proxyToken', { type: 'http', scheme: 'bearer' });
  for (const operation of operations) mount(app, services, operation);
  let document: unknown;
  app.get('/v1/openapi.json', (c) => {
    document ??= app.getOpenAPI31Document({ openapi: '3.1.0', info: { title: 'Holdfast', version: '1' } });
    return c.json(document as object);
  });
  app.get('/v1/health', (c) => c.json({ status: 'ok' }));
  app.notFound((c) =>
    problemAnswer(
      services,
      new HoldfastError('not-found', `There is no ${c.req.method} ${c.req.path}`),
      requestId(services),
    ),
  );
  app.onError((error) => problemAnswer(services, error, requestId(services)));
  return app;
}

function mount(app: OpenAPIHono, services: Services, operation: Operation): void {
  app.openAPIRegistry.registerPath(documented(operation));
  const path = operation.path.replace(/\{(\w+)\}/g, ':$1');
  app.on(operation.method.toUpperCase(), path, async (c) => {
    const id = requestId(services);
    try {
      const answer = await perform(services, operation, c);
      const headers = { ...answer.headers, 'x-request-id': id, 'cache-control': 'no-store' };
      if (answer.status === 204) return new Response(null, { status: 204, headers });
      return new Response(answer.body, {
        status: answer.status,
        headers: { ...headers, 'content-type': 'application/json' },
      });
    } catch (error) {
      return problemAnswer(services, error, id);
    }
  });
}

async function perform(services: Services, operation: Operation, c: Context): Promise<KeptAnswer> {
  // Before anything is read or checked: who is not known learns nothing from us.
  const caller = await authenticate(services, operation, c);
  const text = operation.method === 'post' ? await readBody(c, operation.bodyMaxBytes ?? API_BODY_MAX_BYTES) : '';
  const part = (schema: Operation['params'], value: () => unknown, name: string) =>
    schema === undefined ? undefined : checkPart(schema, value(), name);
  const params = part(operation.params, () => c.req.param(), 'path');
  const query = part(operation.query, () => c.req.query(), 'query');
  const body = part(operation.body, () => parseJson(text), 'body');
  const run = async (ids: ReturnType<typeof idsWithoutKey>): Promise<KeptAnswer> => {
    const outcome = await operation.handle({ caller, params, query, body, ids, signal: c.req.raw.signal });
    const value = isAnswer(outcome) ? outcome.body : outcome;
    const content = operation.response === undefined ? '' : JSON.stringify(operation.response.parse(value));
    return { status: operation.status, body: content, headers: isAnswer(outcome) ? { ...outcome.headers } : {} };
  };
  const key = c.req.header('idempotency-key');
  const principal = caller === undefined ? undefined : 'principal' in caller ? caller.principal : caller.proxy;
  // Nothing of a secret is kept: an activation token's text is shown once, also to a repetition.
  if (
    key === undefined ||
    operation.method === 'get' ||
    principal === undefined ||
    operation.id === 'createActivationToken'
  ) {
    return run(idsWithoutKey(services));
  }
  if (key.length === 0 || key.length > IDEMPOTENCY_KEY_MAX) {
    throw new HoldfastError('usage', `An Idempotency-Key has 1 to ${IDEMPOTENCY_KEY_MAX} characters`);
  }
  return runOnce(services, { principal, key, fingerprint: fingerprintOf(c.req.method, c.req.path, text) }, run);
}

async function authenticate(services: Services, operation: Operation, c: Context) {
  if (operation.audience === 'public') return undefined;
  const text = /^Bearer (\S+)$/.exec(c.req.header('authorization') ?? '')?.[1] ?? '';
  return operation.audience === 'tenant' ? verifyApiKey(services, text) : verifyAccessToken(services, text);
}

/** Reads at most `maxBytes`, whatever length was announced. */
async function readBody(c: Context, maxBytes: number): Promise<string> {
  const tooLarge = () =>
    new HoldfastError('limit', `The body is larger than ${maxBytes} bytes`, { remedy: 'Send less at once' });
  if (Number(c.req.header('content-length') ?? 0) > maxBytes) throw tooLarge();
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of c.req.raw.body ?? []) {
    length += part.length;
    if (length > maxBytes) throw tooLarge();
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new HoldfastError('usage', 'The body is not JSON', { remedy: 'Send a JSON body' });
  }
}

function requestId(services: Services): string {
  return `req_${Buffer.from(services.random.bytes(12)).toString('hex')}`;
}

function documented(operation: Operation) {
  const json = (schema: unknown) => ({ 'application/json': { schema } });
  const security = { tenant: [{ apiKey: [] }], proxy: [{ proxyToken: [] }], public: [] }[
    operation.audience as 'tenant'
  ];
  return {
    method: operation.method,
    path: operation.path,
    operationId: operation.id,
    summary: operation.summary,
    tags: [operation.audience === 'tenant' ? 'tenant' : 'proxy'],
    security,
    request: {
      ...(operation.params === undefined ? {} : { params: operation.params }),
      ...(operation.query === undefined ? {} : { query: operation.query }),
      ...(operation.body === undefined ? {} : { body: { required: true, content: json(operation.body) } }),
    },
    responses: {
      [operation.status]: {
        description: 'Done',
        ...(operation.response === undefined ? {} : { content: json(operation.response) }),
      },
      default: { description: 'What went wrong', content: { [PROBLEM_TYPE]: { schema: problemSchema } } },
    },
  } as Parameters<OpenAPIHono['openAPIRegistry']['registerPath']>[0];
}
