declare module 'pino-roll' {
  import type { DestinationStream } from 'pino'

  export interface RollOptions {
    file: string
    extension?: string
    frequency?: 'daily' | 'hourly' | number
    size?: string | number
    mkdir?: boolean
    dateFormat?: string
    limit?: { count?: number; removeOtherLogFiles?: boolean }
    sync?: boolean
    /** Of the files. */
    mode?: number
    /** Characters that may wait for the disk; more are dropped. */
    maxLength?: number
  }

  export interface RollStream extends DestinationStream {
    end(): void
    flushSync(): void
    on(event: 'error', listener: (error: Error) => void): this
    /** Some bytes were written. */
    on(event: 'write', listener: (bytes: number) => void): this
  }

  export default function build(options: RollOptions): Promise<RollStream>
}
