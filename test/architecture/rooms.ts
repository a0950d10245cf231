/**
 * The house: its rooms, who may know whom, and every exception with its reason. This is the one place
 * where the architecture's rules are written down for the machine.
 */

export interface Room {
  readonly at: string;
  /** Rooms whose files it may import, besides its own. */
  readonly files: readonly string[];
  /** Packages it may import; `node` stands for all builtins. */
  readonly packages: 'any' | readonly string[];
}

const contract = 'services/contract';
const ports = 'services/ports';
const repository = 'services/repository';
const domain = 'services/domain';
const app = 'services/app';
const workflows = 'services/workflows';
const nbd = 'edge-proxy/nbd';
const sources = 'edge-proxy/sources';
const engine = 'edge-proxy/engine';
const recovery = 'edge-proxy/recovery';
const shared = [contract, ports, repository];

export const ROOMS: readonly Room[] = [
  { at: contract, files: [], packages: ['zod'] },
  { at: ports, files: [contract], packages: [] },
  { at: repository, files: [contract, ports], packages: ['node', 'zod'] },
  // croner is pure given a moment: it turns a cron text and a time zone into the next moments.
  { at: domain, files: [contract], packages: ['croner', 'zod', 'node:assert', 'node:assert/strict'] },
  {
    at: app,
    files: [domain, repository, ports, contract],
    packages: ['node', 'hono', '@hono/zod-openapi', 'jose', 'zod'],
  },
  { at: workflows, files: [app, domain, ports, contract], packages: ['node', 'zod'] },
  { at: 'services/aws', files: [workflows, app, domain, ...shared], packages: 'any' },
  { at: 'services/local', files: [workflows, app, domain, ...shared], packages: 'any' },
  { at: nbd, files: [...shared, sources], packages: ['node', 'zod'] },
  { at: sources, files: [...shared, nbd], packages: ['node', 'zod'] },
  { at: engine, files: [...shared, nbd, sources], packages: ['node', 'zod'] },
  { at: recovery, files: [...shared, nbd, sources, engine], packages: ['node', 'zod'] },
  {
    at: 'edge-proxy/agent',
    files: [...shared, nbd, sources, engine, recovery],
    packages: ['node', 'zod', 'jose', 'undici'],
  },
  { at: 'edge-proxy/commands', files: [...shared, nbd, sources, engine, recovery], packages: ['node', 'zod'] },
  { at: 'edge-proxy/appliance', files: [...shared], packages: ['node', 'zod'] },
  { at: 'edge-proxy/main.ts', files: [], packages: 'any' },
  { at: 'web', files: [contract], packages: 'any' },
  { at: 'cdk', files: [workflows, contract], packages: 'any' },
  { at: 'test', files: [], packages: 'any' },
];

/** Composition roots: they choose the adapters, so they may import from every room (but no test). */
export const ROOTS: readonly { readonly path: string; readonly why: string }[] = [
  { path: 'services/local/main.ts', why: 'the embedded control plane' },
  { path: 'services/local/cli.ts', why: 'what the launcher starts' },
  { path: 'services/local/process.ts', why: 'the process around the command line' },
  { path: 'services/local/command-line.ts', why: 'dispatches to the commands of both houses' },
  { path: 'services/local/commands/', why: 'each command is a program' },
  { path: 'services/local/demo/', why: 'the demo puts control plane and proxy together' },
  { path: 'services/aws/handlers/', why: 'each handler is a program' },
  { path: 'edge-proxy/main.ts', why: "the appliance's daemon" },
  { path: 'edge-proxy/commands/', why: 'vault commands open a folder with the embedded adapters' },
  { path: 'cdk/', why: 'runs on a desk' },
];

const CLOCK = ['Date', 'performance'];
const TIMERS = ['setTimeout', 'setInterval', 'AbortSignal.timeout'];
const RANDOM = ['Math.random', 'crypto.getRandomValues', 'crypto.randomUUID'];
const PROCESS = ['process.env', 'process.exit'];

/** Globals that make code depend on the moment, on chance or on its surroundings. */
export const BANNED_GLOBALS: readonly string[] = [...CLOCK, ...TIMERS, ...RANDOM, ...PROCESS];

/** Who may use which of them all the same, and why. */
export const EXEMPT_FROM_BANS: readonly {
  readonly path: string;
  readonly globals: readonly string[];
  readonly why: string;
}[] = [
  ...ROOTS.map(({ path, why }) => ({ path, why: `composition root: ${why}`, globals: BANNED_GLOBALS })),
  { path: 'services/local/', globals: [...CLOCK, ...TIMERS, ...RANDOM], why: 'adapters: the real clock and chance' },
  { path: 'services/aws/', globals: [...CLOCK, ...TIMERS, ...RANDOM], why: 'adapters: the real clock and chance' },
  { path: 'edge-proxy/nbd/', globals: TIMERS, why: 'adapter: watchdogs over real sockets, no decisions about time' },
  {
    path: 'edge-proxy/sources/',
    globals: TIMERS,
    why: 'adapter: watchdogs over child processes, no decisions about time',
  },
  { path: 'web/', globals: [...CLOCK, ...TIMERS, ...RANDOM], why: 'the browser is its surroundings' },
  {
    path: 'edge-proxy/engine/backup/backup-worker.ts',
    globals: ['performance', 'Math.random'],
    why: 'a thread starts from plain data, so it makes its own clock for stage times and its own chance for samples',
  },
  {
    path: 'edge-proxy/engine/restore/restore-worker.ts',
    globals: ['performance'],
    why: 'a thread starts from plain data, so it makes its own clock for stage times',
  },
];

export const FORBIDDEN_WORDS: readonly string[] = ['util', 'utils', 'helper', 'helpers', 'manager', 'common', 'misc'];

/** Lines a file may have. */
export const MAX_LINES = 450;
