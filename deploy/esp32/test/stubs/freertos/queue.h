#pragma once
#include "FreeRTOS.h"
typedef struct QueueDefinition *QueueHandle_t;
extern "C" QueueHandle_t xQueueCreate(UBaseType_t length, UBaseType_t item_bytes);
extern "C" BaseType_t xQueueSend(QueueHandle_t, const void *, TickType_t);
extern "C" BaseType_t xQueueReceive(QueueHandle_t, void *, TickType_t);
