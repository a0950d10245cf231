/** What the command line hands to a command, and what it expects of one. Types only. */

/** The terminal (or pipe) a command talks to. Nothing in a command touches `process` for these. */
export interface CommandIo {
  /** Results: what a person or a program asked for. */
  readonly stdout: NodeJS.WritableStream;
  /** Everything else: progress, warnings, errors. */
  readonly stderr: NodeJS.WritableStream;
  readonly stdin: NodeJS.ReadableStream;
  /** Aborted by the first Ctrl-C (or SIGTERM): clean up and return; the second ends the process at once. */
  readonly signal: AbortSignal;
  /** True if stderr is a terminal, so that a progress line may be drawn on it. */
  readonly isTty: boolean;
}

/** One verb of `holdfast`. Its file is loaded only when the verb is used. */
export interface Command {
  /** One line, without a full stop. */
  readonly summary: string;
  /** The text of `--help`: the forms, then the options. */
  readonly usage: string;
  /** Help of the sub-verbs, if there are any: `holdfast vault backup --help` shows `verbs.backup.usage`. */
  readonly verbs?: Readonly<Record<string, { readonly summary: string; readonly usage: string }>>;
  /**
   * Does the work and resolves to the exit code: 0 only if all is well. Throws `HoldfastError`, which is
   * printed with its remedy (exit code 1; 2 for `usage`).
   */
  run(argv: string[], io: CommandIo): Promise<number>;
}
