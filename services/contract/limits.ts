/** Every limit of the system in one place. Nothing grows without one. */

const KiB = 1024;
const MiB = 1024 * KiB;

/** Table (DynamoDB's own limits; the embedded adapter enforces the same). */
export const TABLE_ITEM_MAX_BYTES = 400 * 1000;
export const TABLE_TRANSACTION_MAX_ACTIONS = 100;
export const TABLE_TRANSACTION_MAX_BYTES = 4 * MiB;
export const TABLE_PAGE_MAX_BYTES = MiB;
export const TABLE_KEY_MAX_BYTES = 1024;

/** Queue (SQS). */
export const QUEUE_MESSAGE_MAX_BYTES = 256 * KiB;
export const QUEUE_RECEIVE_MAX_MESSAGES = 10;
export const QUEUE_WAIT_MAX_SECONDS = 20;
export const QUEUE_DELAY_MAX_SECONDS = 900;
export const QUEUE_VISIBILITY_MAX_SECONDS = 12 * 3600;
export const QUEUE_RETENTION_SECONDS = 14 * 24 * 3600;
export const QUEUE_NAME_MAX_BYTES = 128;
/** Receivers that may wait at one queue at once. */
export const QUEUE_MAX_WAITERS = 1000;

/** Workflows (Step Functions). */
export const WORKFLOW_PAYLOAD_MAX_BYTES = 256 * KiB;
export const WORKFLOW_MAX_TRANSITIONS = 25_000;
export const WORKFLOW_NAME_MAX_CHARACTERS = 80;
/** How long an ended execution can be described. */
export const WORKFLOW_RETENTION_SECONDS = 90 * 24 * 3600;
/** Task handlers that the embedded interpreter runs at once. */
export const WORKFLOW_MAX_RUNNING_TASKS = 100;

/** Blobs. */
export const BLOB_KEY_MAX_BYTES = 1024;
export const BLOB_LIST_MAX_KEYS = 1000;
/** Objects changed by compare-and-swap are small. */
export const BLOB_SWAP_MAX_BYTES = 4 * MiB;
export const GRANT_MAX_SECONDS = 3600;
/** S3's limit for one PUT. */
export const GRANT_UPLOAD_MAX_BYTES = 5 * 1024 * MiB;

/** Keys (KMS). */
export const KEYS_WRAP_MAX_BYTES = 4 * KiB;

/** HTTP API. */
export const API_BODY_MAX_BYTES = MiB;
export const API_PAGE_MAX_ITEMS = 200;
export const API_WAIT_MAX_SECONDS = 20;

/** What one machine may have. */
export const MACHINE_MAX_DISKS = 64;
export const DISK_MAX_BYTES = 256 ** 3 * 16 * MiB; // image trees of three inner levels: 256 TiB
