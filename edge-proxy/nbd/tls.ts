import { readFile } from 'node:fs/promises';
import { isIP, type Socket } from 'node:net';
import {
  type ConnectionOptions,
  createSecureContext,
  createServer,
  type TLSSocket,
  type TlsOptions,
  connect as tlsConnect,
} from 'node:tls';
import { HoldfastError } from '#contract/errors.ts';
import type { NbdAddress } from '../sources/disk.ts';

/** PEM files of a server that speaks TLS. */
export interface ServerTls {
  readonly certFile: string;
  readonly keyFile: string;
  /** Where given, only clients with a certificate of this authority are let in. */
  readonly clientCaFile?: string;
}

const MIN_VERSION = 'TLSv1.2';

/** Reads an address's PEM files into options for {@link startClientTls}. Throws `usage` if one cannot be read. */
export async function loadClientTls(address: NbdAddress): Promise<ConnectionOptions> {
  const tls = address.tls;
  if (!tls) throw new Error('the address has no TLS');
  const name = tls.serverName ?? address.host ?? 'localhost';
  return {
    ca: await readPem(tls.caFile), // pinned: the host's own authorities are not asked
    ...(tls.certFile && tls.keyFile ? { cert: await readPem(tls.certFile), key: await readPem(tls.keyFile) } : {}),
    // The name is checked against the certificate; server name indication forbids IP addresses.
    ...(isIP(name) ? { host: name } : { host: name, servername: name }),
    minVersion: MIN_VERSION,
    rejectUnauthorized: true,
  };
}

/** Speaks TLS over a socket on which STARTTLS was acknowledged. Rejects with `unauthorized` if the peer is not who it must be. */
export function startClientTls(socket: Socket, options: ConnectionOptions): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const secure = tlsConnect({ ...options, socket });
    const failed = (cause: unknown) => {
      secure.destroy();
      reject(refusal('server', cause));
    };
    secure.once('error', failed);
    secure.once('close', () => failed(new Error('the peer closed the connection during the TLS handshake')));
    secure.once('secureConnect', () => {
      secure.removeAllListeners('close');
      secure.removeListener('error', failed);
      resolve(secure);
    });
  });
}

/** Reads a server's PEM files. Throws `usage` if one cannot be read or they do not fit. */
export async function loadServerTls(tls: ServerTls): Promise<TlsOptions> {
  const [cert, key] = [await readPem(tls.certFile), await readPem(tls.keyFile)];
  const ca = tls.clientCaFile === undefined ? undefined : await readPem(tls.clientCaFile);
  const options: TlsOptions = {
    cert,
    key,
    minVersion: MIN_VERSION,
    ...(ca ? { ca, requestCert: true, rejectUnauthorized: true } : {}),
  };
  try {
    createSecureContext({ cert, key });
  } catch (cause) {
    throw new HoldfastError('usage', `The certificate ${tls.certFile} cannot be used`, {
      cause,
      remedy: 'Check that it is PEM and that the key belongs to it',
    });
  }
  return options;
}

/** The server's side of {@link startClientTls}. */
export function startServerTls(socket: Socket, options: TlsOptions): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    // A TLS server that listens nowhere: it checks the client's certificate, which a bare TLSSocket leaves to its maker.
    const gate = createServer(options);
    gate.once('secureConnection', resolve);
    gate.once('tlsClientError', (cause, secure) => {
      secure.destroy();
      reject(refusal('client', cause));
    });
    socket.once('close', () => reject(refusal('client', new Error('the connection was closed'))));
    gate.emit('connection', socket);
  });
}

function refusal(peer: 'server' | 'client', cause: unknown): HoldfastError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new HoldfastError('unauthorized', `The TLS handshake with the NBD ${peer} failed: ${why}`, {
    cause,
    remedy: `Check that the ${peer}'s certificate is valid, made by the given authority, and names the host connected to`,
  });
}

async function readPem(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'error';
    throw new HoldfastError('usage', `Cannot read the PEM file ${path}: ${code}`, {
      cause,
      remedy: 'Give the path of a PEM file that this user may read',
    });
  }
}
