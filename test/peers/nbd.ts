/** Foreign NBD programs for tests: started for one test, ended with it. */

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createCipheriv, createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createConnection, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { NbdAddress } from '#edge/sources/disk.ts';

const FOLDERS = ['/usr/local/bin', '/usr/bin', '/bin', '/usr/sbin', '/sbin'];
const PACKAGES: Readonly<Record<string, string>> = {
  nbdkit: 'nbdkit',
  'qemu-nbd': 'qemu-utils',
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  openssl: 'openssl',
  filefrag: 'e2fsprogs',
  losetup: 'mount',
};

/** A test's `skip`: false if all programs are there, else which package to install. */
export function needs(...programs: readonly string[]): string | false {
  const absent = programs.filter((program) => !FOLDERS.some((folder) => existsSync(join(folder, program))));
  if (absent.length === 0) return false;
  return `needs ${absent.join(', ')}: apt-get install ${[...new Set(absent.map((p) => PACKAGES[p] ?? p))].join(' ')}`;
}

/** A folder that is removed when the test ends. */
export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-test-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Bytes that look random and are always the same for a seed. */
export function noise(seed: string, length: number): Buffer {
  const key = createHash('sha256').update(seed).digest();
  return createCipheriv('aes-128-ctr', key.subarray(0, 16), key.subarray(16)).update(Buffer.alloc(length));
}

/** What a program that ran to its end said. */
export interface Ran {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end (30 s at most); never throws for its status. */
export function run(program: string, ...args: readonly string[]): Promise<Ran> {
  return new Promise((resolve) => {
    execFile(program, args, { timeout: 30_000, maxBuffer: 64 * 1024 * 1024 }, (error, stdout, stderr) => {
      const status = error ? (typeof error.code === 'number' ? error.code : -1) : 0;
      resolve({ status, stdout, stderr });
    });
  });
}

/** Runs a program to its end and throws with its words if it fails. */
export async function must(program: string, ...args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await run(program, ...args);
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${status}: ${stderr}`);
  return stdout;
}

/** A foreign server that runs. */
export interface Peer {
  readonly address: NbdAddress;
  readonly child: ChildProcess;
  /** Ends it at once. */
  kill(): Promise<void>;
}

/** nbdkit on a unix socket (or with `tcp` on a port of 127.0.0.1), for one test. */
export async function startNbdkit(
  t: TestContext,
  args: readonly string[],
  options: { readonly tcp?: boolean } = {},
): Promise<Peer> {
  const { address, where } = await newAddress(t, options.tcp ?? false);
  const listen = where.socket ? ['-U', where.socket] : ['-i', '127.0.0.1', '-p', String(where.port)];
  return startPeer(t, address, 'nbdkit', ['-f', ...listen, ...args]);
}

/** qemu-nbd on a unix socket (or with `tcp` on a port of 127.0.0.1), for one test. */
export async function startQemuNbd(
  t: TestContext,
  args: readonly string[],
  options: { readonly tcp?: boolean } = {},
): Promise<Peer> {
  const { address, where } = await newAddress(t, options.tcp ?? false);
  const listen = where.socket ? [`--socket=${where.socket}`] : ['-b', '127.0.0.1', '-p', String(where.port)];
  return startPeer(t, address, 'qemu-nbd', ['--persistent', '--shared=8', ...listen, ...args]);
}

async function newAddress(
  t: TestContext,
  tcp: boolean,
): Promise<{ address: NbdAddress; where: { socket?: string; port?: number } }> {
  if (!tcp) {
    const socket = join(await temporaryFolder(t), 's');
    return { address: { socket, exportName: '' }, where: { socket } };
  }
  const port = await freePort();
  return { address: { host: '127.0.0.1', port, exportName: '' }, where: { port } };
}

async function startPeer(t: TestContext, address: NbdAddress, program: string, args: readonly string[]): Promise<Peer> {
  // The peer must not outlive a test run that is killed.
  const guard = existsSync('/usr/bin/setpriv') ? ['setpriv', '--pdeathsig', 'KILL'] : [];
  const [first, ...rest] = [...guard, program, ...args];
  const child = spawn(first!, rest, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (bytes: Buffer) => {
    said = (said + bytes.toString()).slice(-4000);
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const kill = async () => {
    child.kill('SIGKILL');
    await ended;
  };
  t.after(kill);
  for (let attempt = 0; !(await answers(address)); attempt++) {
    if (child.exitCode !== null || attempt > 500)
      throw new Error(`${program} ${args.join(' ')} did not start: ${said}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return { address, child, kill };
}

function answers(address: NbdAddress): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createConnection(
      address.socket ? { path: address.socket } : { host: address.host!, port: address.port! },
    );
    // Its greeting, not just the connection: qemu-nbd listens before its export is ready.
    probe.once('data', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
    probe.once('end', () => resolve(false));
  });
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A folder of certificates, named as nbdkit, QEMU and libnbd expect, and a foreign authority beside them. */
export interface Certificates {
  readonly folder: string;
  readonly caFile: string;
  readonly otherCaFile: string;
  readonly server: { readonly certFile: string; readonly keyFile: string };
  readonly client: { readonly certFile: string; readonly keyFile: string };
  /** By the foreign authority. */
  readonly stranger: { readonly certFile: string; readonly keyFile: string };
}

/** Certificates for `localhost` and 127.0.0.1, made by openssl. */
export async function makeCertificates(t: TestContext): Promise<Certificates> {
  const folder = await temporaryFolder(t);
  await chmod(folder, 0o700);
  const at = (name: string) => join(folder, name);
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const authority = async (name: string) => {
    await must(
      'openssl',
      'req',
      '-x509',
      ...key,
      '-keyout',
      at(`${name}-key.pem`),
      '-out',
      at(`${name}-cert.pem`),
      '-days',
      '2',
      '-subj',
      `/CN=${name}`,
    );
  };
  const sign = async (name: string, ca: string, usage: string) => {
    await must(
      'openssl',
      'req',
      ...key,
      '-keyout',
      at(`${name}-key.pem`),
      '-out',
      at(`${name}.csr`),
      '-subj',
      `/CN=${name}`,
    );
    const extensions = `subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=${usage}\nkeyUsage=digitalSignature\n`;
    await writeFile(at(`${name}.ext`), extensions);
    const by = ['-CA', at(`${ca}-cert.pem`), '-CAkey', at(`${ca}-key.pem`), '-CAcreateserial', '-days', '2'];
    await must(
      'openssl',
      'x509',
      '-req',
      '-in',
      at(`${name}.csr`),
      ...by,
      '-extfile',
      at(`${name}.ext`),
      '-out',
      at(`${name}-cert.pem`),
    );
    return { certFile: at(`${name}-cert.pem`), keyFile: at(`${name}-key.pem`) };
  };
  await authority('ca');
  await authority('other');
  return {
    folder,
    caFile: at('ca-cert.pem'),
    otherCaFile: at('other-cert.pem'),
    server: await sign('server', 'ca', 'serverAuth'),
    client: await sign('client', 'ca', 'clientAuth'),
    stranger: await sign('stranger', 'other', 'clientAuth'),
  };
}

/** True if the process has ended or is only waited for. */
export async function isGone(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return stat === '' || /\) [ZX] /.test(stat);
}
