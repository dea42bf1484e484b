import { restart } from './stories/restart.js';

restart('pusher-js-7');
