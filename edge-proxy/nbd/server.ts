import { chmod, lstat, unlink } from 'node:fs/promises';
import {
  type AddressInfo,
  createConnection,
  createServer,
  type ListenOptions,
  type Server,
  type Socket,
} from 'node:net';
import type { TlsOptions } from 'node:tls';
import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import type { NbdAddress } from '../sources/disk.ts';
import type { ExportBackend } from './backend.ts';
import { Inbox } from './inbox.ts';
import { receive } from './reception.ts';
import { isRefusal, serve } from './service.ts';
import { loadServerTls, type ServerTls, startServerTls } from './tls.ts';

export interface ServeOptions {
  /** A unix socket path (made with mode 0600), or a host and port (0: any free one). */
  readonly listen: { readonly socket: string } | { readonly host: string; readonly port: number };
  /** By name; looked up at each connection, so entries may come and go. */
  readonly exports: ReadonlyMap<string, ExportBackend>;
  /** With it nothing is served in the clear; without it STARTTLS is refused. */
  readonly tls?: ServerTls;
  /** Connections at a time; default 64, more are hung up on. */
  readonly maxClients?: number;
  /** Requests of one client under way at a time; default 32. */
  readonly inFlight?: number;
  /** For a client to choose an export; default 15 s. */
  readonly handshakeTimeoutMs?: number;
  /** Told of failures of backends and of clients that break the protocol. */
  readonly onError?: (error: unknown) => void;
}

export interface NbdServer extends AsyncDisposable {
  /** Where clients connect; `exportName` is empty, `tls` is absent. */
  readonly address: NbdAddress;
  readonly clients: number;
  /** Hangs up on all clients and resolves when no backend call is under way. */
  close(): Promise<void>;
}

const MAX_CLIENTS = 64;
const IN_FLIGHT = 32;
const HANDSHAKE_TIMEOUT_MS = 15_000;
const INBOX_BYTES = 1024 * 1024;

/**
 * Serves exports over NBD. Whatever a client sends ends at worst its own connection.
 * Throws `busy` if the address is taken, `forbidden`, `usage` (TLS files, bad address).
 */
export async function serveNbd(options: ServeOptions): Promise<NbdServer> {
  const tls = options.tls ? await loadServerTls(options.tls) : undefined;
  const stopping = new AbortController();
  const sessions = new Map<Socket, Promise<void>>();
  const listener = createServer({ noDelay: true, keepAlive: true, keepAliveInitialDelay: 30_000 }, (socket) => {
    if (sessions.size >= (options.maxClients ?? MAX_CLIENTS) || stopping.signal.aborted) {
      socket.destroy();
      return;
    }
    const session = attend(socket, tls, options, stopping.signal)
      .catch((error) => options.onError?.(error))
      .finally(() => sessions.delete(socket));
    sessions.set(socket, session);
  });
  await listen(listener, options.listen);
  listener.on('error', (error) => options.onError?.(error));
  const address: NbdAddress =
    'socket' in options.listen
      ? { socket: options.listen.socket, exportName: '' }
      : { host: options.listen.host, port: (listener.address() as AddressInfo).port, exportName: '' };
  const close = async () => {
    const closed = new Promise((resolve) => listener.close(resolve));
    stopping.abort(new HoldfastError('cancelled', 'The NBD server is closing'));
    for (const socket of sessions.keys()) socket.destroy();
    await Promise.all(sessions.values());
    await closed;
  };
  return {
    address,
    get clients() {
      return sessions.size;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function attend(
  plain: Socket,
  tls: TlsOptions | undefined,
  options: ServeOptions,
  stop: AbortSignal,
): Promise<void> {
  let socket: Socket = plain;
  const gone = new AbortController();
  const signal = AbortSignal.any([stop, gone.signal]);
  const inbox = new Inbox(INBOX_BYTES, { onFull: () => socket.pause(), onRoom: () => socket.resume() });
  const hungUp = () => {
    const error = new HoldfastError('cancelled', 'The NBD client hung up');
    inbox.fail(error);
    gone.abort(error);
  };
  const listenTo = (on: Socket) => {
    on.on('data', (bytes: Buffer) => inbox.push(bytes));
    on.on('error', hungUp);
    on.on('close', hungUp);
    on.on('end', hungUp);
  };
  listenTo(plain);
  const secure = async () => {
    plain.removeAllListeners('data');
    plain.pause();
    socket = await startServerTls(plain, tls!);
    listenTo(socket);
  };
  const late = setTimeout(() => plain.destroy(), options.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS);
  try {
    const choice = await receive({
      inbox,
      write: (bytes) => void socket.write(bytes),
      secure: tls ? secure : undefined,
      exports: options.exports,
      requireTls: tls !== undefined,
    });
    clearTimeout(late);
    if (!choice) return;
    await serve({
      ...choice,
      inbox,
      // The callback comes with an error if the connection has ended: the memory is free again all the same.
      write: (bytes, sent) => void socket.write(bytes, sent),
      cut: () => void plain.destroy(),
      signal,
      inFlight: options.inFlight ?? IN_FLIGHT,
      onError: (error) => {
        if (!isRefusal(error) && !signal.aborted) options.onError?.(error);
      },
    });
  } catch (error) {
    plain.destroy();
    if (!isHoldfastError(error, 'cancelled')) throw error;
  } finally {
    clearTimeout(late);
    gone.abort();
    socket.destroySoon();
    // A peer that does not read our last bytes must not hold the session.
    setTimeout(() => plain.destroy(), 1000).unref();
  }
}

async function listen(server: Server, where: ServeOptions['listen']): Promise<void> {
  const target: ListenOptions = 'socket' in where ? { path: where.socket } : { host: where.host, port: where.port };
  try {
    await listenOnce(server, target);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code !== 'EADDRINUSE' || !('socket' in where) || !(await isDead(where.socket)))
      throw cannotListen(where, cause);
    // Left over from a server that was killed: nobody listens there.
    await unlink(where.socket);
    await listenOnce(server, target).catch((again) => {
      throw cannotListen(where, again);
    });
  }
  if ('socket' in where) await chmod(where.socket, 0o600);
}

function listenOnce(server: Server, target: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(target, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
}

/** True for a socket on which nobody listens; a file that is no socket is not ours to remove. */
async function isDead(path: string): Promise<boolean> {
  if (!(await lstat(path)).isSocket()) return false;
  return new Promise((resolve) => {
    const probe = createConnection({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
}

function cannotListen(where: ServeOptions['listen'], cause: unknown): HoldfastError {
  const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
  const at = 'socket' in where ? where.socket : `${where.host}:${where.port}`;
  if (code === 'EADDRINUSE') {
    return new HoldfastError('busy', `Another server listens at ${at}`, { cause, remedy: 'Choose another address' });
  }
  if (code === 'EACCES' || code === 'EPERM') {
    return new HoldfastError('forbidden', `No permission to listen at ${at}`, {
      cause,
      remedy: 'Choose another folder or port',
    });
  }
  return new HoldfastError('usage', `Cannot listen at ${at}: ${code}`, {
    cause,
    remedy: 'Check that the folder exists, and that a socket path has at most 107 bytes',
  });
}
