/**
 * The error every operation throws when something outside the code went wrong. Bugs throw plain
 * assertion errors; this type is for what a person can understand and act on.
 */

/** Stable names of failures. Callers branch on these, never on texts; none is ever renamed. */
export type ErrorCode =
  | 'usage' // wrong arguments or settings
  | 'not-found' // what was named does not exist (or is not yours)
  | 'exists' // what was to be made exists already
  | 'conflict' // somebody else changed it first
  | 'busy' // held by another session or job
  | 'unauthorized' // no or no valid credentials
  | 'forbidden' // valid credentials without the right
  | 'wrong-key' // key file or passphrase does not fit the vault
  | 'unreadable' // a source could not be read
  | 'source-changed' // the source changed shape while it was read
  | 'target-full' // no space where we write
  | 'target-failed' // a target could not be written
  | 'store-failed' // the object store answered with an error
  | 'missing' // an object of the vault is gone
  | 'damaged' // bytes are not what they must be
  | 'format-too-new' // written by a newer version
  | 'limit' // over a limit of services/contract/limits.ts
  | 'throttled' // asked to slow down
  | 'timeout'
  | 'cancelled'
  | 'protocol' // a peer broke its protocol
  | 'needs-program' // a program that this act needs is not installed
  | 'fenced' // the session was ended by the vault's collector or a later session
  | 'internal';

export interface ErrorDetails {
  readonly cause?: unknown;
  /** What to do about it: one imperative sentence. */
  readonly remedy?: string | undefined;
  /** What was tried before giving up, such as "3 attempts over 12 s". */
  readonly tried?: string | undefined;
  /** True if the same act may succeed later without anybody changing anything. */
  readonly retryable?: boolean;
  /** Machine-readable facts: point, disk, offset, length, key … Never a secret. */
  readonly data?: Readonly<Record<string, unknown>>;
}

/**
 * An expected failure with a stable {@link ErrorCode}.
 *
 * @example throw new HoldfastError('not-found', 'Point pnt_01… does not exist', { remedy: 'List them with: vault points' })
 */
export class HoldfastError extends Error {
  override readonly name = 'HoldfastError';
  readonly code: ErrorCode;
  readonly remedy: string | undefined;
  readonly tried: string | undefined;
  readonly retryable: boolean;
  readonly data: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.remedy = details.remedy;
    this.tried = details.tried;
    this.retryable = details.retryable ?? false;
    this.data = details.data ?? {};
  }
}

/** True for an expected failure, of the given code if one is named. */
export function isHoldfastError(error: unknown, code?: ErrorCode): error is HoldfastError {
  return error instanceof HoldfastError && (code === undefined || error.code === code);
}

/** The error as plain data, for JSON output, messages between threads and the wire. */
export interface ErrorReport {
  readonly code: ErrorCode;
  readonly message: string;
  readonly remedy?: string | undefined;
  readonly tried?: string | undefined;
  readonly retryable?: boolean;
  readonly data?: Readonly<Record<string, unknown>>;
}

/** Turns anything thrown into an {@link ErrorReport}; what is not ours becomes `internal`. */
export function reportOf(error: unknown): ErrorReport {
  if (!(error instanceof HoldfastError)) {
    return { code: 'internal', message: error instanceof Error ? error.message : String(error) };
  }
  return {
    code: error.code,
    message: error.message,
    ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
    ...(error.tried === undefined ? {} : { tried: error.tried }),
    ...(error.retryable ? { retryable: true } : {}),
    ...(Object.keys(error.data).length === 0 ? {} : { data: error.data }),
  };
}

/** The inverse of {@link reportOf}. */
export function errorFrom(report: ErrorReport): HoldfastError {
  return new HoldfastError(report.code, report.message, report);
}
