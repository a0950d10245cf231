import type { ConnectionOptions } from 'node:tls';
import { HoldfastError } from '#contract/errors.ts';
import type { NbdAddress } from '../sources/disk.ts';
import { formatNbdUri } from './address.ts';
import type { Channel } from './channel.ts';
import type { Inbox } from './inbox.ts';
import {
  DEFAULT_MAX_REQUEST_BYTES,
  encodeOption,
  FLAG,
  getUint64,
  HANDSHAKE,
  INFO,
  isReplyError,
  lengthPrefixed,
  MAGIC_OPTION,
  MAGIC_OPTION_REPLY,
  MAGIC_SERVER,
  OPTION,
  OPTION_REPLY_HEAD_BYTES,
  REPLY,
  uint16,
  uint32,
} from './protocol.ts';

/** What a client and a server have agreed on about one export. */
export interface Agreement {
  readonly sizeBytes: number;
  /** Transmission flags, see FLAG. */
  readonly flags: number;
  readonly structured: boolean;
  /** Offsets and lengths must be multiples of `minimum`; reads and writes at most `maximum` bytes. */
  readonly blocks: { readonly minimum: number; readonly preferred: number; readonly maximum: number };
  /** Meta contexts that the server grants, and the ids it gave them. */
  readonly contexts: ReadonlyMap<string, number>;
}

/** An export in a server's list. */
export interface ListedExport {
  readonly name: string;
  readonly description: string;
}

const REPLY_MAX_BYTES = 64 * 1024;
const REPLIES_MAX = 10_000;

/** The client's side of the handshake: one option and its answers after the other. */
export interface Negotiation {
  readonly channel: Channel;
  readonly inbox: Inbox;
  readonly address: NbdAddress;
}

/** Greets the server and, where the address says so, goes on in TLS or not at all. */
export async function greet(
  on: Negotiation,
  tls: ConnectionOptions | undefined,
): Promise<{ readonly noZeroes: boolean }> {
  const hello = await on.inbox.take(18);
  if (hello.readBigUInt64BE(0) !== MAGIC_SERVER) throw breach(on, 'the peer is not an NBD server');
  if (hello.readBigUInt64BE(8) !== MAGIC_OPTION) throw breach(on, 'the server speaks only the old handshake');
  const offered = hello.readUInt16BE(16);
  if ((offered & HANDSHAKE.fixedNewstyle) === 0) throw breach(on, 'the server does not speak fixed newstyle');
  on.channel.write(uint32(offered & (HANDSHAKE.fixedNewstyle | HANDSHAKE.noZeroes)));
  if (tls) {
    const [answer] = await ask(on, OPTION.startTls);
    if (answer?.type !== REPLY.ack) {
      throw new HoldfastError('unauthorized', `The server of ${formatNbdUri(on.address)} does not offer TLS`, {
        remedy: 'Switch TLS on at the server; the disk is not read in the clear',
      });
    }
    // Plain bytes after the acknowledgement would be taken for the server's secured answers.
    if (on.inbox.waitingBytes > 0) throw breach(on, 'bytes followed the STARTTLS acknowledgement');
    await on.channel.secure(tls);
  }
  return { noZeroes: (offered & HANDSHAKE.noZeroes) !== 0 };
}

/** Agrees on one export and on the meta contexts, and enters transmission. Throws `not-found` for an unknown export. */
export async function enter(
  on: Negotiation,
  options: { readonly contexts: readonly string[]; readonly structured: boolean; readonly noZeroes: boolean },
): Promise<Agreement> {
  const structured = options.structured && (await ask(on, OPTION.structuredReply))[0]?.type === REPLY.ack;
  const contexts = structured ? await setContexts(on, options.contexts) : new Map<string, number>();
  const body = Buffer.concat([lengthPrefixed(on.address.exportName), uint16(1), uint16(INFO.blockSize)]);
  const answers = await ask(on, OPTION.go, body);
  const last = answers.at(-1)!;
  if (last.type === REPLY.errUnsupported) return enterOldWay(on, options.noZeroes, structured, contexts);
  if (last.type !== REPLY.ack) throw refusal(on, last, 'opening the export');
  let size: { sizeBytes: number; flags: number } | undefined;
  let blocks = { minimum: 1, preferred: 4096, maximum: DEFAULT_MAX_REQUEST_BYTES };
  for (const { type, body } of answers) {
    if (type !== REPLY.info) continue;
    const kind = body.length >= 2 ? body.readUInt16BE(0) : -1;
    if (kind === INFO.export && body.length === 12)
      size = { sizeBytes: getUint64(body, 2), flags: body.readUInt16BE(10) };
    else if (kind === INFO.blockSize && body.length === 14) {
      blocks = { minimum: body.readUInt32BE(2), preferred: body.readUInt32BE(6), maximum: body.readUInt32BE(10) };
    } else if (kind === INFO.export || kind === INFO.blockSize)
      throw breach(on, 'an information reply has a wrong length');
  }
  if (!size) throw breach(on, 'the server did not tell the size of the export');
  return agreed(on, { ...size, structured, blocks, contexts });
}

/** The names of all exports. Throws `forbidden` where the server does not tell. */
export async function listExports(on: Negotiation): Promise<readonly ListedExport[]> {
  const answers = await ask(on, OPTION.list);
  const last = answers.at(-1)!;
  if (last.type !== REPLY.ack) throw refusal(on, last, 'listing the exports');
  return answers
    .filter(({ type }) => type === REPLY.server)
    .map(({ body }) => {
      const length = body.length >= 4 ? body.readUInt32BE(0) : REPLY_MAX_BYTES;
      if (4 + length > body.length) throw breach(on, 'a listed export name is cut off');
      return { name: body.toString('utf8', 4, 4 + length), description: body.toString('utf8', 4 + length) };
    });
}

/** The meta contexts an export offers, such as `base:allocation`; `query` may be a namespace (`qemu:`). */
export async function listContexts(on: Negotiation, queries: readonly string[]): Promise<readonly string[]> {
  if ((await ask(on, OPTION.structuredReply))[0]?.type !== REPLY.ack) return [];
  const answers = await ask(on, OPTION.listMetaContext, contextQuery(on, queries));
  const last = answers.at(-1)!;
  if (last.type === REPLY.errUnsupported) return [];
  if (last.type !== REPLY.ack) throw refusal(on, last, 'listing the contexts');
  return contextsIn(on, answers).map(([name]) => name);
}

/** Says goodbye to a server in the handshake. */
export function abortOptions(on: Negotiation): void {
  on.channel.write(encodeOption(OPTION.abort));
}

async function setContexts(on: Negotiation, wanted: readonly string[]): Promise<Map<string, number>> {
  if (wanted.length === 0) return new Map();
  const answers = await ask(on, OPTION.setMetaContext, contextQuery(on, wanted));
  // A refusal means no contexts; what is wrong with the export itself is told by the next option.
  if (answers.at(-1)!.type !== REPLY.ack) return new Map();
  const granted = new Map(contextsIn(on, answers));
  for (const name of granted.keys())
    if (!wanted.includes(name)) throw breach(on, `the context ${name} was not asked for`);
  return granted;
}

function contextQuery(on: Negotiation, queries: readonly string[]): Buffer {
  return Buffer.concat([lengthPrefixed(on.address.exportName), uint32(queries.length), ...queries.map(lengthPrefixed)]);
}

function contextsIn(on: Negotiation, answers: readonly OptionAnswer[]): [string, number][] {
  return answers
    .filter(({ type }) => type === REPLY.metaContext)
    .map(({ body }) => {
      if (body.length < 5) throw breach(on, 'a context reply is cut off');
      return [body.toString('utf8', 4), body.readUInt32BE(0)];
    });
}

/** NBD_OPT_EXPORT_NAME, for servers older than NBD_OPT_GO: no errors, the server just hangs up. */
async function enterOldWay(
  on: Negotiation,
  noZeroes: boolean,
  structured: boolean,
  contexts: ReadonlyMap<string, number>,
): Promise<Agreement> {
  on.channel.write(encodeOption(OPTION.exportName, Buffer.from(on.address.exportName)));
  const reply = await on.inbox.take(noZeroes ? 10 : 134);
  const blocks = { minimum: 1, preferred: 4096, maximum: DEFAULT_MAX_REQUEST_BYTES };
  return agreed(on, { sizeBytes: getUint64(reply, 0), flags: reply.readUInt16BE(8), structured, blocks, contexts });
}

function agreed(on: Negotiation, agreement: Agreement): Agreement {
  const { sizeBytes, flags, blocks } = agreement;
  if (!Number.isSafeInteger(sizeBytes)) throw breach(on, 'the export claims a size above 2^53 bytes');
  if ((flags & FLAG.hasFlags) === 0) throw breach(on, 'the export has no flags');
  const powerOfTwo = (n: number) => n > 0 && Number.isInteger(Math.log2(n));
  if (!powerOfTwo(blocks.minimum) || blocks.minimum > 65536 || blocks.maximum < blocks.minimum) {
    throw breach(on, `the block sizes ${blocks.minimum}/${blocks.maximum} make no sense`);
  }
  if (sizeBytes % blocks.minimum !== 0) throw breach(on, 'the size is no multiple of the block size');
  return agreement;
}

interface OptionAnswer {
  readonly type: number;
  readonly body: Buffer;
}

/** Sends one option and collects its answers up to the one that ends it. */
async function ask(on: Negotiation, option: number, body?: Uint8Array): Promise<OptionAnswer[]> {
  on.channel.write(encodeOption(option, body));
  const answers: OptionAnswer[] = [];
  for (;;) {
    const head = await on.inbox.take(OPTION_REPLY_HEAD_BYTES);
    if (head.readBigUInt64BE(0) !== MAGIC_OPTION_REPLY) throw breach(on, 'an option reply has a wrong magic number');
    if (head.readUInt32BE(8) !== option) throw breach(on, 'a reply answers another option');
    const type = head.readUInt32BE(12);
    const length = head.readUInt32BE(16);
    if (length > REPLY_MAX_BYTES) throw breach(on, `an option reply of ${length} bytes`);
    answers.push({ type, body: length === 0 ? Buffer.alloc(0) : await on.inbox.take(length) });
    if (type === REPLY.ack || isReplyError(type)) return answers;
    if (answers.length > REPLIES_MAX) throw breach(on, `over ${REPLIES_MAX} replies to one option`);
  }
}

function refusal(on: Negotiation, answer: OptionAnswer, doing: string): HoldfastError {
  const text = answer.body.toString('utf8').slice(0, 200);
  const said = text ? ` (${JSON.stringify(text)})` : '';
  const at = formatNbdUri(on.address);
  switch (answer.type) {
    case REPLY.errUnknown:
      return new HoldfastError(
        'not-found',
        `There is no export ${JSON.stringify(on.address.exportName)} at ${at}${said}`,
        {
          remedy: 'Check the export name in the address',
        },
      );
    case REPLY.errTlsRequired:
      return new HoldfastError('unauthorized', `The server of ${at} requires TLS${said}`, {
        remedy: 'Use an nbds:// address with ca-file=',
      });
    case REPLY.errPolicy:
      return new HoldfastError('forbidden', `The server refused ${doing} at ${at}${said}`, {
        remedy: "Check the server's settings",
      });
    case REPLY.errShutdown:
      return new HoldfastError('unreadable', `The server of ${at} is shutting down`, {
        retryable: true,
        remedy: 'Try again when it is up',
      });
    default:
      return breach(on, `${doing} failed with reply type 0x${answer.type.toString(16)}${said}`);
  }
}

function breach(on: Negotiation, what: string): HoldfastError {
  return new HoldfastError('protocol', `NBD handshake with ${formatNbdUri(on.address)}: ${what}`, {
    remedy: 'Check that the address is that of a current NBD server',
  });
}
