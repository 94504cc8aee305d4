import { checkFrames } from './check-frames.ts'
import { checkInstrument } from './check-instrument.ts'
import type { CheckPiece, CheckScope, CheckTask } from './check-tasks.ts'

/** Does one piece of a check; `onChars` is told of what was read, in characters. */
export function checkTask(task: CheckTask, scope: CheckScope, onChars: (chars: number) => void): Promise<CheckPiece> {
  return task.kind === 'frames' ? checkFrames(task, scope, onChars) : checkInstrument(task, scope, onChars)
}
