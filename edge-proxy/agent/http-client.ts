import * as http from 'node:http';
import * as https from 'node:https';
import { HoldfastError } from '#contract/errors.ts';

/** Sockets to one server. */
const SOCKETS_MAX = 16;
/** Answers of the API and objects fit; a server that sends more is cut off. */
const ANSWER_MAX_BYTES = 80 * 1024 * 1024;

export interface HttpRequest {
  readonly method: 'GET' | 'POST' | 'PUT';
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent in order without being joined. */
  readonly parts?: readonly Uint8Array[];
  /** The connection is given up when nothing moves for so long. */
  readonly idleMs: number;
  readonly signal?: AbortSignal | undefined;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}

/** HTTP with kept connections. Every failure to get an answer is a retryable `store-failed`. */
export class HttpClient {
  readonly #http = new http.Agent({ keepAlive: true, maxSockets: SOCKETS_MAX });
  readonly #https = new https.Agent({ keepAlive: true, maxSockets: SOCKETS_MAX });

  /** Sends and reads the whole answer, whatever its status. Rejects with the signal's reason if aborted. */
  async send(request: HttpRequest): Promise<HttpAnswer> {
    request.signal?.throwIfAborted();
    const isTls = request.url.startsWith('https:');
    const options: http.RequestOptions = {
      method: request.method,
      headers: { ...request.headers },
      agent: isTls ? this.#https : this.#http,
    };
    const outgoing = isTls ? https.request(request.url, options) : http.request(request.url, options);
    const abort = () => outgoing.destroy(request.signal?.reason as Error);
    request.signal?.addEventListener('abort', abort, { once: true });
    outgoing.setTimeout(request.idleMs, () => outgoing.destroy(new Error(`nothing moved for ${request.idleMs} ms`)));
    try {
      const answered = answerOf(outgoing);
      // A server may answer, and refuse, before it has read all: its answer counts, not the broken pipe.
      const sent = send(outgoing, request.parts ?? []).catch(() => undefined);
      const answer = await answered;
      void sent;
      return answer;
    } catch (cause) {
      request.signal?.throwIfAborted();
      const { host } = new URL(request.url);
      throw new HoldfastError('store-failed', `${host} did not answer: ${reasonOf(cause)}`, { cause, retryable: true });
    } finally {
      request.signal?.removeEventListener('abort', abort);
    }
  }

  /** Closes all connections. */
  close(): void {
    this.#http.destroy();
    this.#https.destroy();
  }
}

async function send(outgoing: http.ClientRequest, parts: readonly Uint8Array[]): Promise<void> {
  for (const part of parts) {
    if (outgoing.destroyed) return;
    if (outgoing.write(part)) continue;
    await new Promise<void>((resolve) => {
      const done = () => {
        outgoing.off('drain', done).off('close', done);
        resolve();
      };
      outgoing.on('drain', done).on('close', done);
    });
  }
  outgoing.end();
}

function answerOf(outgoing: http.ClientRequest): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    outgoing.on('error', reject);
    outgoing.on('response', (incoming) => {
      readBody(incoming).then(
        (body) => resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body }),
        reject,
      );
    });
  });
}

async function readBody(incoming: http.IncomingMessage): Promise<Buffer> {
  const announced = Number(incoming.headers['content-length'] ?? Number.NaN);
  if (announced > ANSWER_MAX_BYTES) throw new Error(`an answer of ${announced} bytes`);
  if (Number.isInteger(announced)) {
    const body = Buffer.allocUnsafeSlow(announced);
    let length = 0;
    for await (const part of incoming as AsyncIterable<Buffer>) length += part.copy(body, length);
    if (length !== announced) throw new Error('the answer broke off');
    return body;
  }
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of incoming as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > ANSWER_MAX_BYTES) throw new Error(`an answer of more than ${ANSWER_MAX_BYTES} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function reasonOf(cause: unknown): string {
  if (cause instanceof AggregateError && cause.errors.length > 0) return reasonOf(cause.errors[0]);
  return cause instanceof Error ? cause.message : String(cause);
}
