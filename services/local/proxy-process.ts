import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freshIds } from '#app/context.ts';
import { createActivationToken, listProxies } from '#app/proxies.ts';
import type { Id } from '#contract/ids.ts';
import { type RunningControlPlane, writeSecret } from './main.ts';

const PROXY_MAIN = fileURLToPath(new URL('../../edge-proxy/main.ts', import.meta.url));
const STOP_MS = 10_000;
const RESTART_FIRST_MS = 250;
const RESTART_MAX_MS = 10_000;
const STARTED_MS = 2000;
/** A log that has grown beyond this begins anew at the next start. */
const LOG_MAX_BYTES = 16 * 1024 * 1024;
const TOKEN_SECONDS = 3600;
/** A proxy usually reports within a second of its start. */
const SILENT_MS = 15_000;

export interface ProxyProcessOptions {
  readonly plane: RunningControlPlane;
  readonly folder: string;
  readonly logFile: string;
  readonly log: (line: string) => void;
}

/** An edge proxy in a process of its own. */
export interface ProxyProcess extends AsyncDisposable {
  /** The proxy's id once it has enrolled and been heard of; `undefined` if the signal aborts first. */
  online(signal: AbortSignal): Promise<Id<'proxy'> | undefined>;
}

/**
 * Runs an edge proxy beside the control plane and starts it again whenever it dies. It gets nothing but a folder, the API's
 * address and, once, an activation token; its standard input tells it when this process is gone.
 */
export async function superviseProxy(options: ProxyProcessOptions): Promise<ProxyProcess> {
  const { plane, folder } = options;
  const { clock } = plane.services;
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const tokenFile = join(folder, 'activation-token');
  if (!isEnrolled(folder)) {
    const ids = freshIds(clock, plane.services.random);
    const token = await createActivationToken(plane.services, { tenant: plane.tenant.id }, ids, TOKEN_SECONDS);
    await writeSecret(tokenFile, `${token.token}\n`);
  }
  const stop = new AbortController();
  let child: ChildProcess | undefined;
  const startedMs = clock.nowMs();
  const loop = (async () => {
    let waitMs = RESTART_FIRST_MS;
    while (!stop.signal.aborted) {
      const bornMs = clock.monotonicMs();
      child = start(options, tokenFile);
      const [code, signal] = await once(child, 'exit');
      if (stop.signal.aborted) return;
      // One that ran for a while did not die of its start: it comes back at once.
      waitMs = clock.monotonicMs() - bornMs > STARTED_MS ? RESTART_FIRST_MS : Math.min(waitMs * 2, RESTART_MAX_MS);
      options.log(`The proxy ended (${signal ?? code}); starting it again. Its log: ${options.logFile}`);
      await clock.sleep(waitMs, stop.signal).catch(() => undefined);
    }
  })();
  return {
    async online(signal) {
      let sayAtMs = clock.monotonicMs() + SILENT_MS;
      while (!signal.aborted) {
        if (clock.monotonicMs() >= sayAtMs) {
          options.log(`The proxy has not reported yet; its log says why: ${options.logFile}`);
          sayAtMs = Number.POSITIVE_INFINITY;
        }
        const page = await listProxies(plane.services, { tenant: plane.tenant.id }, { limit: 200 });
        const found = page.items.find(({ lastSeenAt = '' }) => Date.parse(lastSeenAt) >= startedMs);
        if (found !== undefined) return found.id;
        await clock.sleep(50, signal).catch(() => undefined);
      }
      return undefined;
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      if (child !== undefined) await end(child);
      await loop;
    },
  };
}

function start(options: ProxyProcessOptions, tokenFile: string): ChildProcess {
  const log = openSync(options.logFile, isLarge(options.logFile) ? 'w' : 'a', 0o600);
  try {
    const args = [
      '--data',
      options.folder,
      '--api',
      options.plane.url,
      '--activation-token-file',
      tokenFile,
      '--stop-with-stdin',
    ];
    return spawn(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', '--max-semi-space-size=4', PROXY_MAIN, ...args],
      {
        stdio: ['pipe', log, log],
      },
    );
  } finally {
    closeSync(log);
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  await exited;
  clearTimeout(timer);
}

/** True if the proxy's identity file has an id: then it needs no token any more. */
function isEnrolled(folder: string): boolean {
  try {
    return typeof JSON.parse(readFileSync(join(folder, 'identity.json'), 'utf8')).proxy === 'string';
  } catch {
    return false;
  }
}

function isLarge(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.size ?? 0) > LOG_MAX_BYTES;
}
