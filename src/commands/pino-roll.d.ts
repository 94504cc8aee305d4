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
  }

  export default function build(options: RollOptions): Promise<DestinationStream & { end(): void; flushSync(): void }>
}
