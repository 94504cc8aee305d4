import { parentPort } from 'node:worker_threads'
import { messageOf } from '../core/errors.ts'
import { type HourTask, rebuildHour } from './rebuild-hour.ts'

// A thread of `l3cap rebuild`: takes hours one after the other and answers each with its report or its error.
parentPort?.on('message', (task: HourTask) => {
  rebuildHour(task).then(
    report => parentPort?.postMessage({ report }),
    error => parentPort?.postMessage({ error: messageOf(error) })
  )
})
