import { HoldfastError } from '#contract/errors.ts';
import type { ExportBackend } from './backend.ts';
import type { Inbox } from './inbox.ts';
import {
  DEFAULT_MAX_REQUEST_BYTES,
  encodeOptionReply,
  FLAG,
  HANDSHAKE,
  INFO,
  lengthPrefixed,
  MAGIC_OPTION,
  MAGIC_SERVER,
  NAME_MAX_BYTES,
  OPTION,
  OPTION_HEAD_BYTES,
  putUint64,
  REPLY,
  uint16,
  uint32,
} from './protocol.ts';

/** The only meta context of our server, and the id it gives it. */
export const ALLOCATION = { name: 'base:allocation', id: 1 } as const;

/** A client at the door. */
export interface Visitor {
  readonly inbox: Inbox;
  write(bytes: Uint8Array): void;
  /** Goes on in TLS; absent where the server has no certificate, or the connection is secured already. */
  secure: (() => Promise<void>) | undefined;
  readonly exports: ReadonlyMap<string, ExportBackend>;
  readonly requireTls: boolean;
}

/** What a client has chosen. */
export interface Choice {
  readonly backend: ExportBackend;
  readonly structured: boolean;
  /** The client asked for `base:allocation`. */
  readonly allocation: boolean;
}

const OPTION_MAX_BYTES = 64 * 1024;
const OPTIONS_MAX = 1000;
const QUERIES_MAX = 256;
const PREFERRED_BYTES = 64 * 1024;

/** Transmission flags of an export of ours. */
export function flagsOf(backend: ExportBackend, structured: boolean): number {
  const writable = !backend.readOnly && backend.write !== undefined;
  let flags = FLAG.hasFlags | FLAG.canMultiConn; // all connections share the backend, so one flush covers all
  if (!writable) flags |= FLAG.readOnly;
  if (backend.flush) flags |= FLAG.sendFlush | FLAG.sendFua;
  if (writable) flags |= FLAG.sendWriteZeroes;
  if (writable && backend.trim) flags |= FLAG.sendTrim;
  if (structured) flags |= FLAG.sendDf;
  return flags;
}

/**
 * The server's side of the handshake.
 * Returns the chosen export, or `undefined` if the client took its leave. Throws `protocol` for what no client may send.
 */
export async function receive(visitor: Visitor): Promise<Choice | undefined> {
  const hello = Buffer.alloc(18);
  hello.writeBigUInt64BE(MAGIC_SERVER, 0);
  hello.writeBigUInt64BE(MAGIC_OPTION, 8);
  hello.writeUInt16BE(HANDSHAKE.fixedNewstyle | HANDSHAKE.noZeroes, 16);
  visitor.write(hello);
  const clientFlags = (await visitor.inbox.take(4)).readUInt32BE(0);
  if ((clientFlags & ~3) !== 0) throw breach('unknown client flags');
  const noZeroes = (clientFlags & HANDSHAKE.noZeroes) !== 0;
  let structured = false;
  let contextFor: string | undefined; // the export that base:allocation was set for
  let mustSecure = visitor.requireTls;
  for (let count = 0; count < OPTIONS_MAX; count++) {
    const head = await visitor.inbox.take(OPTION_HEAD_BYTES);
    if (head.readBigUInt64BE(0) !== MAGIC_OPTION) throw breach('an option has a wrong magic number');
    const option = head.readUInt32BE(8);
    const length = head.readUInt32BE(12);
    if (length > OPTION_MAX_BYTES) throw breach(`an option of ${length} bytes`);
    const body = length === 0 ? Buffer.alloc(0) : await visitor.inbox.take(length);
    const reply = (type: number, payload?: Uint8Array | string) =>
      visitor.write(encodeOptionReply(option, type, payload));
    if (mustSecure && option !== OPTION.startTls && option !== OPTION.abort) {
      if (option === OPTION.exportName) throw breach('an export was asked for in the clear');
      reply(REPLY.errTlsRequired, 'this server requires TLS');
      continue;
    }
    switch (option) {
      case OPTION.abort:
        reply(REPLY.ack);
        return undefined;
      case OPTION.startTls: {
        if (length !== 0 || !visitor.secure) {
          reply(length !== 0 ? REPLY.errInvalid : REPLY.errUnsupported);
          break;
        }
        // Plain bytes sent ahead of the TLS handshake would be taken for the client's secured ones.
        if (visitor.inbox.waitingBytes > 0) throw breach('bytes followed STARTTLS in the clear');
        reply(REPLY.ack);
        await visitor.secure();
        visitor.secure = undefined;
        mustSecure = false;
        structured = false;
        contextFor = undefined;
        break;
      }
      case OPTION.list:
        if (length !== 0) reply(REPLY.errInvalid);
        else {
          for (const [name, { description = '' }] of visitor.exports) {
            reply(REPLY.server, Buffer.concat([lengthPrefixed(name), Buffer.from(description)]));
          }
          reply(REPLY.ack);
        }
        break;
      case OPTION.structuredReply:
        structured ||= length === 0;
        reply(length === 0 ? REPLY.ack : REPLY.errInvalid);
        break;
      case OPTION.listMetaContext:
      case OPTION.setMetaContext: {
        const query = structured ? parseContextQuery(body) : undefined;
        if (option === OPTION.setMetaContext) contextFor = undefined;
        if (!query) reply(REPLY.errInvalid);
        else if (!find(visitor.exports, query.exportName)) reply(REPLY.errUnknown);
        else {
          if (matches(query.queries, option === OPTION.listMetaContext)) {
            if (option === OPTION.setMetaContext) contextFor = query.exportName;
            reply(REPLY.metaContext, Buffer.concat([uint32(ALLOCATION.id), Buffer.from(ALLOCATION.name)]));
          }
          reply(REPLY.ack);
        }
        break;
      }
      case OPTION.info:
      case OPTION.go: {
        const name = parseGo(body);
        const backend = name === undefined ? undefined : find(visitor.exports, name);
        if (name === undefined) reply(REPLY.errInvalid);
        else if (!backend) reply(REPLY.errUnknown, 'no such export');
        else {
          const description = backend.description;
          if (description) reply(REPLY.info, Buffer.concat([uint16(INFO.description), Buffer.from(description)]));
          const sizes = [uint32(1), uint32(PREFERRED_BYTES), uint32(DEFAULT_MAX_REQUEST_BYTES)];
          reply(REPLY.info, Buffer.concat([uint16(INFO.blockSize), ...sizes]));
          reply(REPLY.info, Buffer.concat([uint16(INFO.export), sizeAndFlags(backend, structured)]));
          reply(REPLY.ack);
          if (option === OPTION.go) return { backend, structured, allocation: contextFor === name };
        }
        break;
      }
      case OPTION.exportName: {
        const backend = find(visitor.exports, body.toString('utf8'));
        if (!backend) throw breach('an unknown export was asked for'); // this option has no error reply
        visitor.write(Buffer.concat([sizeAndFlags(backend, structured), Buffer.alloc(noZeroes ? 0 : 124)]));
        return { backend, structured, allocation: contextFor === body.toString('utf8') };
      }
      default:
        reply(REPLY.errUnsupported);
    }
  }
  throw breach(`over ${OPTIONS_MAX} options`);
}

function sizeAndFlags(backend: ExportBackend, structured: boolean): Buffer {
  const bytes = Buffer.alloc(10);
  putUint64(bytes, 0, backend.sizeBytes);
  bytes.writeUInt16BE(flagsOf(backend, structured), 8);
  return bytes;
}

/** The empty name is the default export: the one of that name, or else the only one. */
function find(exports: ReadonlyMap<string, ExportBackend>, name: string): ExportBackend | undefined {
  const found = exports.get(name);
  if (found || name !== '' || exports.size !== 1) return found;
  return exports.values().next().value;
}

function matches(queries: readonly string[], listing: boolean): boolean {
  if (listing && queries.length === 0) return true;
  return queries.some((query) => query === ALLOCATION.name || (listing && query === 'base:'));
}

function parseGo(body: Buffer): string | undefined {
  if (body.length < 6) return undefined;
  const nameBytes = body.readUInt32BE(0);
  if (nameBytes > NAME_MAX_BYTES || 6 + nameBytes > body.length) return undefined;
  // What the client would like to know is ignored: it is told everything.
  if (body.length !== 6 + nameBytes + 2 * body.readUInt16BE(4 + nameBytes)) return undefined;
  return body.toString('utf8', 4, 4 + nameBytes);
}

function parseContextQuery(body: Buffer): { exportName: string; queries: string[] } | undefined {
  let at = 0;
  const text = () => {
    if (at + 4 > body.length) return undefined;
    const length = body.readUInt32BE(at);
    if (length > NAME_MAX_BYTES || at + 4 + length > body.length) return undefined;
    at += 4 + length;
    return body.toString('utf8', at - length, at);
  };
  const exportName = text();
  if (exportName === undefined || at + 4 > body.length) return undefined;
  const count = body.readUInt32BE(at);
  at += 4;
  if (count > QUERIES_MAX) return undefined;
  const queries: string[] = [];
  for (let i = 0; i < count; i++) {
    const query = text();
    if (query === undefined) return undefined;
    queries.push(query);
  }
  return at === body.length ? { exportName, queries } : undefined;
}

function breach(what: string): HoldfastError {
  return new HoldfastError('protocol', `An NBD client broke the protocol: ${what}`);
}
